//! The JSON Schema of cameras files, for editors.

use super::read::{CAMERA_KEYS, MATRICES, MOST, ORIENTATIONS, RANGES, ROOT_KEYS, TRANSPORTS};
use crate::dora::Shape;
use serde_json::{Map, Value, json};

/// The schema. It flags less than the check does.
pub fn schema() -> Value {
    let words: [(&str, &[&str]); 4] =
        [("transport", TRANSPORTS), ("matrix", MATRICES), ("range", RANGES), ("orientation", ORIENTATIONS)];
    let property = |(key, shape): &(&str, Shape)| {
        let mut schema = match (words.iter().find(|(word, _)| word == key), shape) {
            // a word such as 90 is text to the reader, and a number to an editor
            (Some((_, allowed)), _) => {
                let numbers = allowed.iter().filter_map(|word| word.parse::<u32>().ok()).map(Value::from);
                json!({ "enum": allowed.iter().map(|&word| Value::from(word)).chain(numbers).collect::<Vec<_>>() })
            }
            // an id such as 17 is text to the reader, and a number to an editor
            (None, Shape::Text) => json!({ "type": ["string", "number"] }),
            (None, Shape::Truth) => json!({ "type": "boolean" }),
            (None, Shape::Number) => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": MOST }),
            (None, _) => json!(true),
        };
        if *key == "size" {
            schema = json!({ "type": "string", "pattern": "^[0-9]+x[0-9]+$" });
        }
        schema["description"] = json!(doc(key));
        ((*key).to_owned(), schema)
    };
    let properties: Map<String, Value> = CAMERA_KEYS.iter().map(property).collect();
    let camera = json!({
        "type": "object", "properties": properties, "additionalProperties": false, "required": ["id"],
        "oneOf": [{ "required": ["url"] }, { "required": ["file"] }]
    });
    let (root, _) = ROOT_KEYS[0];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The cameras of a Millrace decoder (its setting CAMERAS)",
        "type": "object",
        "properties": { root: { "type": "array", "items": camera } },
        "required": [root],
        "additionalProperties": false
    })
}

fn doc(key: &str) -> &'static str {
    match key {
        "id" => "The camera's name: in metrics, on the page, in zenoh's keys. Each camera of a graph has its own.",
        "url" => {
            "An rtsp:// URL, or the http:// URL of a camera that sends Motion JPEG; best without a password: see user."
        }
        "file" => {
            "A video file in place of a camera: MP4/MOV, Matroska, an MPEG transport stream, or a byte stream (Annex-B). From the folder of the graph."
        }
        "enabled" => "false: the camera is known and not read.",
        "transport" => "How RTSP carries the packets; by default the decoder's RTSP_TRANSPORT.",
        "user" => "The user of the URL; the password is named by password_env or password_file.",
        "password_env" => "The environment variable of the decoder that has the password.",
        "password_file" => {
            "A file with the password as its one line, of mode 0600 or stricter and the decoder's user. From the folder of the graph."
        }
        "loop" => "Play the file again and again; by default the decoder's LOOP.",
        "target_fps" => "Most frames a second that leave the decoder, evenly spaced. By default all.",
        "weight" => {
            "The camera's share of a consumer that cannot serve all cameras, relative to the others'. By default 1."
        }
        "matrix" => "The YCbCr matrix, over what the bitstream says.",
        "range" => "The sample range, over what the bitstream says.",
        "orientation" => {
            "How the pictures are turned and mirrored to be upright: mirrored first, then turned clockwise by so many degrees. By default the decoder's ORIENTATION."
        }
        "size" => {
            "Width and height of its picture in pixels, such as 1280x720: for the check's estimate of memory alone."
        }
        "group" => "Decoders with this GROUP serve the camera, so that one file is split over several decoders.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        for (key, _) in CAMERA_KEYS {
            assert!(!doc(key).is_empty(), "{key}");
        }
    }
}

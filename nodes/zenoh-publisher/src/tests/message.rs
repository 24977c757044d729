use super::*;
use crate::config::Encodings;
use crate::message::{ARROW, encode, encode_state};
use millrace_frame::{CameraState, CameraStatus, wire};

#[test]
fn the_encodings_are_what_the_document_says() {
    let both = encode(&found("gate", 7), Encodings::Both).unwrap();
    assert_eq!(both.iter().map(|(e, _)| *e).collect::<Vec<_>>(), [JSON, ARROW]);
    assert_eq!(
        String::from_utf8(both[0].1.clone()).unwrap(),
        r#"{"type":"detections","schema":1,"source":"gate","seq":7,"pts_ns":280000000,"capture_ns":5,"width_px":640,"height_px":480,"model":"m","boxes":[{"x1":1.5,"y1":2.0,"x2":30.0,"y2":40.25,"score":0.9,"class_id":2,"label":"car"}]}"#
    );
    assert_eq!(wire::detections_from_ipc(&both[1].1).unwrap(), found("gate", 7));
    assert_eq!(encode(&found("gate", 7), Encodings::Json).unwrap().len(), 1);
    assert_eq!(encode(&found("gate", 7), Encodings::Arrow).unwrap()[0].0, ARROW);
    let mut bad = found("gate", 7);
    bad.boxes[0].x2 = f32::INFINITY;
    assert!(encode(&bad, Encodings::Both).unwrap_err().to_string().contains("box 0"));
}

#[test]
fn a_state_is_what_the_document_says() {
    let mut status = CameraStatus { state: CameraState::Refused, since_ns: 7, tries: 3, ..CameraStatus::new("gate") };
    status.last_error = "401 Unauthorized".into();
    let text = |status: &CameraStatus| String::from_utf8(encode_state(status).unwrap()).unwrap();
    assert_eq!(
        text(&status),
        r#"{"type":"state","schema":1,"source":"gate","state":"refused","since_ns":7,"last_error":"401 Unauthorized","tries":3}"#
    );
    let live =
        CameraStatus { state: CameraState::Live, last_error: String::new(), tries: 0, last_frame_ns: 9, ..status };
    assert_eq!(
        text(&live),
        r#"{"type":"state","schema":1,"source":"gate","state":"live","since_ns":7,"tries":0,"last_frame_ns":9}"#
    );
}

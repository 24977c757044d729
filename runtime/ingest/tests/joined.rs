//! Byte streams that were joined byte by byte.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, decode, own_data, reference};
use millrace_ingest::IngestOptions;

#[test]
fn a_byte_stream_ends_by_name_where_one_of_the_other_codec_is_joined_to_it() {
    let streams = ["pyramid.264", "closed_gop.265", "cavlc_b.264", "open_gop.265"];
    let read = |name: &str| std::fs::read(own_data(name)).unwrap();
    let md5s = |name: &str| -> Vec<String> {
        reference(&own_data(&format!("{name}.framemd5"))).1.into_iter().map(|frame| frame.md5).collect()
    };
    for first in streams {
        for second in streams {
            let file = Scratch::new("joined.264", &[read(first), read(second)].concat());
            let joined = decode(&file.0, &IngestOptions::default()).unwrap();
            let same_codec = first[first.len() - 3..] == second[second.len() - 3..];
            let want = if same_codec { [md5s(first), md5s(second)].concat() } else { md5s(first) };
            assert_eq!(joined.md5s(), want, "{first}, {second}: {:?}", joined.lost);
            let lost: Vec<_> = joined.lost.into_iter().collect();
            let named = [("unread_recording", 1)];
            assert_eq!(lost, if same_codec { &[] } else { &named[..] }, "{first}, {second}");
        }
    }
}

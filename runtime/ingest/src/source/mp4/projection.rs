//! Pictures that are not flat: those of a sphere, for a viewer who looks around in it.

use super::boxes::{child, children};
use super::entry::VISUAL_BYTES;

/// The `uuid` box that the first description of such video (Spherical Video V1) puts into a track.
const SPHERICAL_UUID: [u8; 16] =
    [0xff, 0xcc, 0x82, 0x63, 0xf8, 0x55, 0x4a, 0x93, 0x88, 0x14, 0x58, 0x7a, 0x02, 0x52, 0x1f, 0xdd];

/// Why the pictures of a track are not flat; `None` where they are.
pub(super) fn not_flat(trak: &[u8], stsd: &[u8]) -> Option<String> {
    let entries = children(stsd.get(8..).unwrap_or_default());
    let sv3d = entries.filter_map(|(_, entry)| child(entry.get(VISUAL_BYTES..)?, b"sv3d")).next();
    // the projection's header comes first, and then the projection
    let proj = sv3d.map(|sv3d| child(sv3d, b"proj").unwrap_or_default());
    let kind = proj.map(|proj| children(proj).map(|(kind, _)| kind).find(|kind| &kind.0 != b"prhd"));
    match kind {
        Some(Some(kind)) if &kind.0 == b"rect" => None,
        Some(Some(kind)) => Some(format!("its pictures are not flat (projection '{kind}')")),
        Some(None) => Some("its pictures are not flat (sv3d)".to_owned()),
        None => {
            let mut uuids = children(trak).filter(|(kind, _)| &kind.0 == b"uuid");
            let spherical = uuids.find_map(|(_, body)| body.strip_prefix(&SPHERICAL_UUID))?;
            let says = b"Spherical>true<";
            let is_said = spherical.windows(says.len()).any(|text| text == says);
            is_said.then(|| "its pictures are not flat (spherical video)".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn stsd(boxes: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, 0, 0, 0, 1][..], &boxed(b"avc1", &[&[0; VISUAL_BYTES][..], boxes].concat())].concat()
    }

    fn projected(kind: &[u8; 4]) -> Vec<u8> {
        let proj = [boxed(b"prhd", &[0; 16]), boxed(kind, &[0; 20])].concat();
        stsd(&boxed(b"sv3d", &[boxed(b"svhd", &[0; 5]), boxed(b"proj", &proj)].concat()))
    }

    #[test]
    fn both_descriptions_of_a_sphere_are_known() {
        let of = |kind| not_flat(b"", &projected(kind));
        assert_eq!(of(b"equi").as_deref(), Some("its pictures are not flat (projection 'equi')"));
        assert_eq!(of(b"cbmp").as_deref(), Some("its pictures are not flat (projection 'cbmp')"));
        assert_eq!(of(b"rect"), None);
        assert_eq!(not_flat(b"", &stsd(b"")), None);
        assert!(not_flat(b"", &stsd(&boxed(b"sv3d", b""))).is_some());
        let uuid = |says: &[u8]| boxed(b"uuid", &[&SPHERICAL_UUID, says].concat());
        let says = b"<?xml version=\"1.0\"?><GSpherical:Spherical>true</GSpherical:Spherical>";
        let why = not_flat(&uuid(says), &stsd(b""));
        assert_eq!(why.as_deref(), Some("its pictures are not flat (spherical video)"));
        assert_eq!(not_flat(&uuid(b"<GSpherical:Spherical>false</"), &stsd(b"")), None);
        assert_eq!(not_flat(&boxed(b"uuid", says), &stsd(b"")), None);
    }
}

//! Which streams a transport stream carries: its program association table and program map tables.

use mpeg2ts_reader::packet::Packet;
use mpeg2ts_reader::psi::pat::{PAT_PID, PatSection, ProgramDescriptor};
use mpeg2ts_reader::psi::pmt::PmtSection;
use mpeg2ts_reader::psi::{
    BufferSectionSyntaxParser, CrcCheckWholeSectionSyntaxPayloadParser, SectionCommonHeader, SectionPacketConsumer,
    SectionSyntaxSectionProcessor, TableSyntaxHeader, WholeSectionSyntaxPayloadParser,
};
use std::collections::BTreeMap;

type Sections<P> = SectionPacketConsumer<
    SectionSyntaxSectionProcessor<BufferSectionSyntaxParser<CrcCheckWholeSectionSyntaxPayloadParser<P>>>,
>;

fn sections<P: WholeSectionSyntaxPayloadParser>(parser: P) -> Sections<P> {
    let checked = CrcCheckWholeSectionSyntaxPayloadParser::new(parser);
    SectionPacketConsumer::new(SectionSyntaxSectionProcessor::new(BufferSectionSyntaxParser::new(checked)))
}

/// An elementary stream, as its program lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) pid: u16,
    /// `stream_type` of ISO/IEC 13818-1, table 2-34.
    pub(super) kind: u8,
}

/// What the tables have said so far.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Number, and the PID of its map, in the order of the association table.
    listed: Vec<(u16, u16)>,
    streams: BTreeMap<u16, Vec<Stream>>,
}

impl Programs {
    /// Every program that is listed has said what it carries.
    pub(super) fn are_complete(&self) -> bool {
        !self.listed.is_empty() && self.listed.iter().all(|(number, _)| self.streams.contains_key(number))
    }

    /// The programs that have said what they carry, in the order of the association table.
    pub(super) fn known(&self) -> impl Iterator<Item = (u16, &[Stream])> {
        self.listed.iter().filter_map(|(number, _)| Some((*number, &self.streams.get(number)?[..])))
    }
}

struct Association;
struct Map;

/// The fields between a section's header and its checksum.
fn body(data: &[u8]) -> &[u8] {
    data.get(SectionCommonHeader::SIZE + TableSyntaxHeader::SIZE..data.len().saturating_sub(4)).unwrap_or_default()
}

impl WholeSectionSyntaxPayloadParser for Association {
    type Context = Programs;

    fn section<'a>(
        &mut self,
        programs: &mut Programs,
        header: &SectionCommonHeader,
        table: &TableSyntaxHeader<'a>,
        data: &'a [u8],
    ) {
        if header.table_id != 0 {
            return;
        }
        if table.section_number() == 0 {
            programs.listed.clear();
        }
        for program in PatSection::new(body(data)).programs() {
            if let ProgramDescriptor::Program { program_number, pid } = program
                && !programs.listed.iter().any(|(number, _)| *number == program_number)
            {
                programs.listed.push((program_number, pid.into()));
            }
        }
    }
}

impl WholeSectionSyntaxPayloadParser for Map {
    type Context = Programs;

    fn section<'a>(
        &mut self,
        programs: &mut Programs,
        header: &SectionCommonHeader,
        table: &TableSyntaxHeader<'a>,
        data: &'a [u8],
    ) {
        let Ok(map) = PmtSection::from_bytes(body(data)) else { return };
        let is_listed = programs.listed.iter().any(|(number, _)| *number == table.id());
        if header.table_id == 2 && is_listed {
            let streams =
                map.streams().map(|s| Stream { pid: s.elementary_pid().into(), kind: s.stream_type().into() });
            programs.streams.insert(table.id(), streams.collect());
        }
    }
}

/// Reads the tables out of the packets that carry them.
pub(super) struct Tables {
    association: Sections<Association>,
    maps: BTreeMap<u16, Sections<Map>>,
    pub(super) programs: Programs,
}

impl Default for Tables {
    fn default() -> Self {
        Self { association: sections(Association), maps: BTreeMap::new(), programs: Programs::default() }
    }
}

impl Tables {
    /// Whether the packet carries a part of a table.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> bool {
        if packet.transport_scrambling_control().is_scrambled() || packet.transport_error_indicator() {
            return false;
        }
        if packet.pid() == PAT_PID {
            self.association.consume(&mut self.programs, packet);
            return true;
        }
        let pid = u16::from(packet.pid());
        if self.programs.listed.iter().any(|(_, map_pid)| *map_pid == pid) {
            self.maps.entry(pid).or_insert_with(|| sections(Map)).consume(&mut self.programs, packet);
            return true;
        }
        false
    }
}

/// What a stream type stands for.
pub(super) fn kind_name(kind: u8) -> String {
    let known = match kind {
        0x01 => "MPEG-1 video",
        0x02 => "MPEG-2 video",
        0x03 | 0x04 => "MPEG audio",
        0x06 => "private data",
        0x0f | 0x11 => "AAC sound",
        0x10 => "MPEG-4 Visual video",
        0x1b => "H.264 video",
        0x21 => "JPEG 2000 video",
        0x24 => "H.265 video",
        0x33 => "H.266 video",
        0x42 | 0xd2 | 0xd4 => "AVS video",
        0x81 | 0x87 => "AC-3 sound",
        0xd1 => "Dirac video",
        0xea => "VC-1 video",
        other => return format!("a stream of type 0x{other:02x}"),
    };
    known.to_owned()
}

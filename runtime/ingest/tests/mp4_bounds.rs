//! MP4 files that are damaged or lie about their size: reading one always ends, and memory is bounded by the file's size.
#![allow(clippy::unwrap_used)]

mod common;

use common::Scratch;
use common::mp4_writer::{Fragment, Movie, boxed, coded, fragment, table, words};
use millrace_ingest::{Event, Ingest, IngestError, IngestOptions};
use std::path::Path;
use std::process::Command;

/// Enough for the test program and for files of some kilobytes. An allocation beyond it ends the program.
const MEMORY_KIB: u64 = 96 << 10;

/// Runs one of the ignored tests in a program of its own that cannot have more memory.
fn with_little_memory(test: &str) {
    let program = std::env::current_exe().unwrap();
    let command = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" --exact {test} --ignored --test-threads 1");
    let shell = Command::new("sh").arg("-c").arg(command).arg(program).env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let said = String::from_utf8_lossy(&shell.stdout);
    assert!(shell.status.success(), "{test}: {:?}\n{said}{}", shell.status, String::from_utf8_lossy(&shell.stderr));
    assert!(said.contains("1 passed"), "{test} is not there: {said}");
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    units: u64,
    lost: u64,
    bytes: u64,
}

fn read(path: &Path) -> Result<Read, IngestError> {
    let mut ingest = Ingest::open(path.to_str().unwrap(), &IngestOptions::default())?;
    let mut read = Read::default();
    loop {
        match ingest.next_event()? {
            Event::Unit(unit) => {
                read.units += 1;
                read.bytes += unit.data.len() as u64;
            }
            Event::Loss(loss) => read.lost += loss.count,
            Event::End => return Ok(read),
            Event::Flush | Event::Counted(_) => {}
            other => panic!("a file gives no {other:?}"),
        }
        assert!(read.units < 1_000_000, "there is no end");
    }
}

/// Files that have all that is read.
fn valid_files() -> Vec<Vec<u8>> {
    let (pictures, _) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let edited = movie.clone().edits(&[(48, -1, 0x10000), (100, 80, 0x10000), (100, 40, 0x10000)]);
    let mut two = movie.clone();
    two.samples_in_chunk = 1;
    two.descriptions.extend(Movie::of(&coded("closed_gop.265").0, true).descriptions);
    two.samples.extend(Movie::samples(&coded("closed_gop.265").0, true, 4, false));
    two.samples.iter_mut().skip(pictures.len()).for_each(|sample| sample.description = 2);
    let mut fragmented = Movie { samples: movie.samples[..9].to_vec(), ..edited.clone() }.file();
    for (n, samples) in movie.samples[9..].chunks(7).enumerate() {
        let how =
            Fragment { time: Some(360 + 280 * n as u64), runs: n % 2 == 1, other_bytes: Some(9), ..Default::default() };
        fragmented.extend(fragment(samples, fragmented.len(), how));
    }
    vec![movie.file(), edited.file(), two.file(), fragmented]
}

/// Where the fields of the boxes are: what is no coded picture.
fn structure(file: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while at + 8 <= file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let is_data = &file[at + 4..at + 8] == b"mdat";
        places.extend(at..at + if is_data { 8 } else { size });
        at += size;
    }
    places
}

#[test]
#[ignore = "run by the test of the same name, with little memory"]
fn damaged_here() {
    for (number, valid) in (0u64..).zip(valid_files()) {
        let places = structure(&valid);
        let mut random = fastrand::Rng::with_seed(0x6d70_3434 + number);
        for _ in 0..1500 {
            let mut bytes = valid.clone();
            for _ in 0..random.usize(1..4) {
                let at = places[random.usize(..places.len())];
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] ^= 1 << random.u8(..8),
                    _ => {
                        let at = at & !3;
                        let extreme = [0u32, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff, 0x0100_0000];
                        let end = (at + 4).min(bytes.len());
                        let value = extreme[random.usize(..extreme.len())].to_be_bytes();
                        bytes[at..end].copy_from_slice(&value[..end - at]);
                    }
                }
            }
            if random.u8(..4) == 0 {
                bytes.truncate(random.usize(..bytes.len()));
            }
            let file = Scratch::new("odd.mp4", &bytes);
            // whatever it is, it has an end
            let _ = read(&file.0);
        }
    }
}

#[test]
fn damaged_files_always_end_in_bounded_memory() {
    for valid in valid_files() {
        let file = Scratch::new("valid.mp4", &valid);
        assert_eq!(read(&file.0).unwrap().lost, 0);
    }
    with_little_memory("damaged_here");
}

/// One track of `count` samples of `size` bytes in `chunks` chunks that all begin at byte 100.
fn claims(count: u32, size: u32, chunks: usize) -> Movie {
    let (pictures, _) = coded("pyramid.264");
    let movie = Movie { samples: Vec::new(), ..Movie::of(&pictures, false) };
    movie
        .put(b"stsz", words([0, size, count]))
        .put(b"stsc", table(0, 1, [1, u32::MAX, 1]))
        .put(b"stts", table(0, 1, [count, 40]))
        .without(b"ctts")
        .without(b"stss")
        .put(b"stco", table(0, chunks, std::iter::repeat_n(100, chunks)))
}

#[test]
#[ignore = "run by the test of the same name, with little memory"]
fn claimed_here() {
    let file = |movie: &Movie| Scratch::new("claims.mp4", &movie.file());
    // four thousand million samples, of which the file has room for a few
    let read_claim = read(&file(&claims(u32::MAX, 500, 1)).0).unwrap();
    assert!(read_claim.units == 0 && read_claim.lost > 4_000_000_000, "{read_claim:?}");
    // samples of no bytes are none
    let empty = claims(u32::MAX, 0, 1);
    assert!(read(&file(&empty).0).err().unwrap().to_string().contains("'stsz' cannot be read"));
    // the same bytes again and again
    let again = read(&file(&claims(u32::MAX, 1, 1000)).0).err().unwrap().to_string();
    assert!(again.contains("it names more samples than the file can hold"), "{again}");
    // tables that claim more rows than they have
    for kind in [b"stts", b"stsc", b"stco", b"ctts", b"stss"] {
        let movie = claims(10, 500, 1).put(kind, words([0, u32::MAX, 1, 1, 1]));
        let error = read(&file(&movie).0).err().unwrap().to_string();
        assert!(error.contains("its table '") && error.contains("cannot be read"), "{error}");
    }
    // runs of fragments that claim samples without any bytes for them
    let index = claims(0, 1, 0);
    for (size, trun) in [(0, vec![0, u32::MAX]), (900, vec![0, u32::MAX]), (900, vec![0x200, u32::MAX, 1])] {
        let traf = [boxed(b"tfhd", &words([0x10, 1, size])), boxed(b"trun", &words(trun))].concat();
        let moof = boxed(b"moof", &boxed(b"traf", &traf));
        let file = Scratch::new("run.mp4", &[index.file(), moof].concat());
        let result = read(&file.0);
        assert!(result.is_ok_and(|read| read.units == 0), "size {size}");
    }
    // a file of few bytes on the disk, and an index of as many as the file seems to have
    let huge = Scratch::new("huge.mp4", b"");
    let begin = [boxed(b"ftyp", b"isom"), words([1]), b"moov".to_vec(), words([64, 0])].concat();
    std::fs::write(&huge.0, begin).unwrap();
    std::fs::File::options().write(true).open(&huge.0).unwrap().set_len(1 << 40).unwrap();
    let error = read(&huge.0).err().unwrap().to_string();
    assert!(error.contains("its index claims 274877906928 bytes") && error.contains("damaged"), "{error}");
}

#[test]
fn what_a_file_claims_is_not_allocated() {
    with_little_memory("claimed_here");
}

#[test]
fn a_file_that_ends_early_gives_what_is_there_and_says_where_it_ends() {
    let (pictures, _) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let whole = movie.file();
    let index = whole.windows(4).position(|w| w == b"moov").unwrap() - 4;
    let error = |bytes: &[u8]| read(&Scratch::new("cut.mp4", bytes).0).err().unwrap().to_string();
    let says = error(&whole[..index - 50]);
    let want =
        format!("it has no index, and it ends early at byte {}, inside of its 'mdat'; the recording was", index - 50);
    assert!(says.contains(&want), "{says}");
    let says = error(&whole[..index + 300]);
    assert!(says.contains(&format!("its index is not whole: it ends early at byte {}", index + 300)), "{says}");
    let segment = fragment(&movie.samples, 0, Fragment::default());
    assert!(error(&segment).contains("it has fragments but no index; it is a segment of a stream"));

    // the index in front, so that the data can be cut
    let head = boxed(b"ftyp", b"isom");
    let bytes = movie.index(0).len();
    let data: Vec<u8> = movie.samples.iter().flat_map(|sample| sample.bytes.clone()).collect();
    let front = [head.clone(), movie.index((head.len() + bytes + 8) as u32), boxed(b"mdat", &data)].concat();
    let count = movie.samples.len() as u64;
    for cut in [1, data.len() / 3, data.len()] {
        let file = Scratch::new("cut.mp4", &front[..front.len() - cut]);
        let mut ingest = Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
        let (mut units, mut lost) = (0, Vec::new());
        loop {
            match ingest.next_event().unwrap() {
                Event::Unit(_) => units += 1,
                Event::Loss(loss) => lost.push(loss),
                Event::End => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lost.len(), 1, "one loss for all that is behind the end: {lost:?}");
        assert_eq!((lost[0].cause, units + lost[0].count), ("truncated", count));
        let says = format!("the file ends early at byte {}", front.len() - cut);
        assert!(lost[0].detail.contains(&says), "{}", lost[0].detail);
    }
}

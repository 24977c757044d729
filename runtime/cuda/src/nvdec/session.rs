//! A stream's parser, and the decoder that its callbacks drive.
#![allow(unsafe_code, reason = "calls of the library, and its callbacks")]

use super::decoder::{Decoder, Picture};
use super::format::chroma_name;
use super::{Closer, Codec, Format, Nvdec, NvdecError, sys};
use crate::Gpu;
use crate::sys::Handle;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// How a [`Session`] decodes its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// In presentation order, a picture comes out as soon as the parser knows its place there. Otherwise the parser holds
    /// back up to four more, which keeps the decoder busy while earlier ones are read.
    pub low_delay: bool,
    /// In which order pictures come out.
    pub order: PictureOrder,
    /// Decode surfaces beyond what the stream needs: that many pictures can be held while decoding goes on.
    pub extra_surfaces: u32,
    /// Pictures that can be mapped at once.
    pub output_surfaces: u32,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { low_delay: false, order: PictureOrder::Presentation, extra_surfaces: 4, output_surfaces: 2 }
    }
}

impl SessionOptions {
    fn display_delay(self) -> u32 {
        match self.order {
            PictureOrder::Presentation if self.low_delay => 0,
            // In decoding order nobody waits for what the parser holds back. That it keeps a surface so much longer is what
            // lets the receiver hold pictures on the feeding thread, to order them.
            PictureOrder::Presentation | PictureOrder::Decoding => DISPLAY_DELAY,
        }
    }

    /// How long a picture's decoding waits for a surface that is still held.
    fn longest_wait(self) -> Option<Duration> {
        match self.order {
            PictureOrder::Presentation => None,
            // the thread that feeds may itself hold the picture that it then waits for
            PictureOrder::Decoding => Some(LONGEST_WAIT),
        }
    }
}

/// In which order a [`Session`] gives pictures out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureOrder {
    /// As they are shown, by the parser's own judgement: by the stream's own bound on reordering, and by a whole picture
    /// buffer where the stream states none.
    #[default]
    Presentation,
    /// As they are decoded: each picture comes out within the [`Session::feed`] of its own access unit, which fails where
    /// none does, and the receiver orders them. The receiver may hold up to the stream's picture buffer and four
    /// more pictures on the feeding thread; with more, a surface can be wanted for a new picture that the receiver still
    /// holds, and after two seconds `feed` fails.
    Decoding,
}

/// Pictures that the parser holds back so that several are in the decoder at once.
const DISPLAY_DELAY: u32 = 4;
/// Units whose pictures may be under way.
const MOST_EXPECTED: usize = 64;
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Takes the pictures that come out, in the order that was asked for, within [`Session::feed`] and [`Session::flush`].
pub type Sink = Box<dyn FnMut(Picture) + Send>;

/// A stream being decoded.
pub struct Session {
    state: NonNull<State>,
    parser: Handle,
}

// SAFETY: the parser may be fed from any thread, one at a time, which `&mut self` ensures; the state holds only what may
// be sent, and is reached through the session alone.
unsafe impl Send for Session {}

/// The state of the callbacks. It must not move, since the parser has its address.
struct State {
    nvdec: Nvdec,
    gpu: Gpu,
    codec: Codec,
    options: SessionOptions,
    sink: Sink,
    decoder: Option<Arc<Decoder>>,
    format: Option<Format>,
    failed: Option<NvdecError>,
    closer: Closer,
    /// The access unit that is being fed, until its picture has come out in decoding order.
    feeding: Option<i64>,
    /// The unit of a frame's first field, until the second has come.
    first_field: Option<i64>,
    /// Numbers of the units whose pictures are to come in presentation order, by the time that the parser was given.
    numbers: BTreeMap<i64, i64>,
}

impl Session {
    /// A parser for a stream of `codec`. The decoder is made when the stream's first parameter sets have come.
    ///
    /// # Errors
    /// The library's.
    pub fn new(nvdec: Nvdec, gpu: &Gpu, codec: Codec, options: SessionOptions, sink: Sink) -> Result<Self, NvdecError> {
        let state = State {
            nvdec,
            gpu: gpu.clone(),
            codec,
            options,
            sink,
            decoder: None,
            format: None,
            failed: None,
            closer: Closer::default(),
            feeding: None,
            first_field: None,
            numbers: BTreeMap::new(),
        };
        let state = NonNull::from(Box::leak(Box::new(state)));
        let mut session = Self { state, parser: std::ptr::null_mut() };
        session.make_parser()?;
        Ok(session)
    }

    /// Passes one access unit to the parser; the sink gets what is to be shown. `number` comes back with the picture, as its
    /// timestamp. `pts_ns` is when the unit's picture is shown: the parser gives out the times of pictures in rising order
    /// for some seconds after it was made (seen with driver 580.159 for streams with B pictures), so a number that rises in
    /// decoding order would come back with another picture. It waits while the decoder's queue is full, and while the picture needs a surface that is still held: whoever holds
    /// pictures must be able to drop them meanwhile.
    ///
    /// # Errors
    /// A stream that the GPU does not decode, or that the library gives up on. After one, [`restart`](Self::restart) and
    /// go on with a key picture.
    pub fn feed(&mut self, unit: &[u8], number: i64, pts_ns: i64) -> Result<(), NvdecError> {
        let state = self.state();
        state.feeding = Some(number);
        let timestamp = match state.options.order {
            PictureOrder::Presentation => state.expect(number, pts_ns),
            // nobody asks the parser for it
            PictureOrder::Decoding => pts_ns,
        };
        let fed = self.parse(sys::SourceDataPacket {
            // with the end of the picture marked, the parser decodes it now; it else waits for the next unit's first bytes
            flags: sys::PACKET_TIMESTAMP | sys::PACKET_END_OF_PICTURE,
            payload_size: unit.len() as u64,
            payload: unit.as_ptr(),
            timestamp,
        });
        let state = self.state();
        let missing = state.feeding.take().is_some() && state.options.order == PictureOrder::Decoding;
        match fed {
            // a picture that came with a later unit would have that unit's times
            Ok(()) if missing => Err(NvdecError::Stream(format!("it gave no picture for unit {number}"))),
            fed => fed,
        }
    }

    /// Ends the stream: the sink gets everything that is held back. Data that is fed afterwards begins a new stream, with a
    /// key picture; the decoder is kept for it.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn flush(&mut self) -> Result<(), NvdecError> {
        let ended = self.parse(sys::SourceDataPacket {
            flags: sys::PACKET_END_OF_STREAM,
            payload_size: 0,
            payload: std::ptr::null(),
            timestamp: 0,
        });
        self.restart()?;
        ended
    }

    /// Forgets the stream, and the pictures that were held back: data that is fed afterwards begins a new stream.
    ///
    /// # Errors
    /// The library's.
    pub fn restart(&mut self) -> Result<(), NvdecError> {
        self.drop_parser();
        self.make_parser()
    }

    /// Ends the waits of this stream for its surfaces, from any thread.
    pub fn closer(&self) -> Closer {
        // SAFETY: as in `format`.
        unsafe { self.state.as_ref() }.closer.clone()
    }

    /// Ends the stream and leaves its decoder to the end of the process, whose memory the driver then takes back. For a
    /// process that ends: the driver destroys one decoder after the other, which takes it long where there are many.
    pub fn leave(mut self) {
        // its last share is never dropped, however many pictures share it, so it is never destroyed
        std::mem::forget(self.state().decoder.take());
    }

    /// What the stream is, as its last parameter sets say.
    pub fn format(&self) -> Option<Format> {
        // SAFETY: the state lives as long as the session, and no callback runs outside `feed`, which is `&mut self`.
        unsafe { self.state.as_ref() }.format
    }

    fn state(&mut self) -> &mut State {
        // SAFETY: as above; the parser does not use its address outside of calls to it, and none runs meanwhile.
        unsafe { self.state.as_mut() }
    }

    fn make_parser(&mut self) -> Result<(), NvdecError> {
        let user_data = self.state.as_ptr().cast();
        let state = self.state();
        state.first_field = None;
        state.numbers.clear();
        let (nvdec, gpu, codec) = (state.nvdec, state.gpu.clone(), state.codec);
        let mut params = sys::ParserParams {
            codec: codec.raw(),
            // the sequence callback states how many there really are
            max_num_decode_surfaces: 1,
            clock_rate: 0,
            // a picture with anything unreadable in its headers is left out, and so missed and counted by who fed it
            error_threshold: 0,
            max_display_delay: state.options.display_delay(),
            bits: 0,
            reserved1: [0; 4],
            user_data,
            sequence: Some(on_sequence),
            decode: Some(on_decode),
            display: Some(on_display),
            operating_point: std::ptr::null_mut(),
            sei: std::ptr::null_mut(),
            reserved2: [std::ptr::null_mut(); 5],
            ext_video_info: std::ptr::null_mut(),
        };
        let mut parser = std::ptr::null_mut();
        // the pointer to the handle is valid for writes until the call returns, and the description is fully
        // initialized; its user data is the state, which outlives the parser
        cuvid!(nvdec, &gpu, format!("a stream of {codec}"), cuvidCreateVideoParser(&raw mut parser, &raw mut params))?;
        self.parser = parser;
        Ok(())
    }

    fn drop_parser(&mut self) {
        let parser = std::mem::replace(&mut self.parser, std::ptr::null_mut());
        if parser.is_null() {
            return;
        }
        let (nvdec, gpu) = (self.state().nvdec, self.state().gpu.clone());
        // our handle, not used again
        let _ =
            cuvid!(nvdec, &gpu, "a parser", cuvidDestroyVideoParser(parser)).inspect_err(|e| tracing::debug!("{e}"));
    }

    fn parse(&mut self, mut packet: sys::SourceDataPacket) -> Result<(), NvdecError> {
        if self.parser.is_null() {
            return Err(NvdecError::Stream("there is none since it could not be made again".to_owned()));
        }
        self.state().failed = None;
        let (nvdec, gpu, parser) = (self.state().nvdec, self.state().gpu.clone(), self.parser);
        // our parser, and a packet whose bytes are borrowed by our caller until the call returns; the callbacks use the
        // state, of which no reference is kept here meanwhile
        let parsed =
            cuvid!(nvdec, &gpu, format!("{} B", packet.payload_size), cuvidParseVideoData(parser, &raw mut packet));
        // a callback's own word says more than the parser's about it
        match self.state().failed.take() {
            Some(e) => Err(e),
            None => Ok(parsed?),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.drop_parser();
        // SAFETY: leaked in `new`, taken back once; the parser, which had the address, is gone.
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

impl State {
    /// The stream begins, or changes: makes a decoder for it, or takes the one that is there. The result is how many
    /// decode surfaces the parser may use.
    fn sequence(&mut self, raw: &sys::VideoFormat) -> Result<u32, NvdecError> {
        let gpu_name = format!("device {} ({})", self.gpu.ordinal(), self.gpu.name());
        let format = Format::of(raw, &gpu_name)?;
        let extra = self.options.extra_surfaces + self.options.display_delay();
        self.format = Some(format);
        if let Some(decoder) = &mut self.decoder {
            if decoder.suits(&format, extra) {
                return Ok(decoder.decode_surfaces());
            }
            // pictures that are still held, of the size before, keep their decoder
            if let Some(decoder) = Arc::get_mut(decoder)
                && decoder.reconfigure(&format, extra)?
            {
                return Ok(decoder.decode_surfaces());
            }
        }
        let caps = self.nvdec.caps(&self.gpu, format.codec, format.bit_depth)?;
        if let Some(why) = caps.refusal(format.coded_width_px, format.coded_height_px, format.bit_depth) {
            return Err(NvdecError::Unsupported {
                codec: format.codec,
                width_px: format.coded_width_px,
                height_px: format.coded_height_px,
                bit_depth: format.bit_depth,
                chroma: chroma_name(raw.chroma_format),
                gpu: gpu_name,
                why,
            });
        }
        // the one before first: a GPU need not have room for both
        self.decoder = None;
        let outputs = self.options.output_surfaces;
        let decoder = Decoder::create(self.nvdec, &self.gpu, &format, extra, outputs, self.closer.clone())?;
        let surfaces = decoder.decode_surfaces();
        self.decoder = Some(Arc::new(decoder));
        Ok(surfaces)
    }

    /// Notes that the picture of unit `number` is to come, and returns the time that the parser is given for it: `pts_ns`, or
    /// the next one that no other picture has.
    fn expect(&mut self, number: i64, mut pts_ns: i64) -> i64 {
        while self.numbers.contains_key(&pts_ns) {
            pts_ns += 1;
        }
        self.numbers.insert(pts_ns, number);
        // units whose pictures never come out: a parser holds a picture buffer, and its own delay
        if self.numbers.len() > MOST_EXPECTED {
            self.numbers.pop_first();
        }
        pts_ns
    }

    /// The unit whose picture has this time.
    fn number_of(&mut self, timestamp: i64) -> Result<i64, NvdecError> {
        let unknown = || NvdecError::Stream(format!("a picture came out with the time {timestamp}, which no unit has"));
        self.numbers.remove(&timestamp).ok_or_else(unknown)
    }

    /// Gives out, in decoding order, the picture whose decoding was queued.
    fn decoded(&mut self, head: &sys::PicParamsHead) -> Result<(), NvdecError> {
        let fields = head.field_picture != 0;
        // the first field of a frame alone is no picture yet; the frame has the number of the unit that it is in
        if fields && head.second_field == 0 {
            self.first_field = self.feeding.take();
            return Ok(());
        }
        let (first, own) = (self.first_field.take(), self.feeding.take());
        // a unit holds one picture; what the parser makes up beside it has no place in any order
        let Some(timestamp) = (if fields { first.or(own) } else { own }) else { return Ok(()) };
        let info = sys::DispInfo {
            picture_index: head.picture_index,
            progressive_frame: (!fields).into(),
            top_field_first: (!fields || head.bottom_field != 0).into(),
            repeat_first_field: 0,
            timestamp,
        };
        let (decoder, format) = self.running()?;
        let picture = Picture::hold(decoder, format, &info)?;
        (self.sink)(picture);
        Ok(())
    }

    fn running(&self) -> Result<(&Arc<Decoder>, &Format), NvdecError> {
        let missing = || NvdecError::Stream("it gave a picture before its parameter sets".to_owned());
        self.decoder.as_ref().zip(self.format.as_ref()).ok_or_else(missing)
    }
}

/// Runs a callback's body on the state; what fails, by a panic too, is kept for `parse` and stops the parser.
///
/// # Safety
/// `user` is a session's state, of which no other reference is in use.
unsafe fn contained(user: *mut c_void, body: impl FnOnce(&mut State) -> Result<c_int, NvdecError>) -> c_int {
    let Some(state) = NonNull::new(user.cast::<State>()) else { return 0 };
    // SAFETY: the caller's contract.
    let state = unsafe { &mut *state.as_ptr() };
    let result = catch_unwind(AssertUnwindSafe(|| body(state)))
        .unwrap_or_else(|_| Err(NvdecError::Stream("what took its pictures panicked".to_owned())));
    match result {
        Ok(code) => code,
        Err(e) => {
            // the first fault is the cause, later ones are its consequences
            state.failed.get_or_insert(e);
            0
        }
    }
}

unsafe extern "C" fn on_sequence(user: *mut c_void, format: *mut sys::VideoFormat) -> c_int {
    // SAFETY: the parser passes the state that it was made with, within `Session::parse`, which keeps no reference, and
    // one callback at a time.
    unsafe {
        contained(user, |state| {
            // SAFETY: the parser's structure, valid during the callback.
            let format = format.as_ref().ok_or_else(|| NvdecError::Stream("it gave no format".to_owned()))?;
            Ok(state.sequence(format)?.cast_signed())
        })
    }
}

unsafe extern "C" fn on_decode(user: *mut c_void, picture: *mut sys::PicParamsHead) -> c_int {
    // SAFETY: as in `on_sequence`.
    unsafe {
        contained(user, |state| {
            let (decoder, _) = state.running()?;
            // SAFETY: what the parser gave to this callback, which is still running.
            decoder.decode(picture, state.options.longest_wait())?;
            if state.options.order == PictureOrder::Decoding {
                // SAFETY: the parser's structure begins with these fields, and is valid during the callback.
                state.decoded(&*picture)?;
            }
            Ok(1)
        })
    }
}

unsafe extern "C" fn on_display(user: *mut c_void, info: *mut sys::DispInfo) -> c_int {
    // SAFETY: as in `on_sequence`.
    unsafe {
        contained(user, |state| {
            if state.options.order == PictureOrder::Decoding {
                // it came out when it was decoded
                return Ok(1);
            }
            // SAFETY: the parser's structure, valid during the callback; null is the end of the stream.
            let Some(info) = info.as_ref() else { return Ok(1) };
            let info = sys::DispInfo { timestamp: state.number_of(info.timestamp)?, ..*info };
            let (decoder, format) = state.running()?;
            let picture = Picture::hold(decoder, format, &info)?;
            (state.sink)(picture);
            Ok(1)
        })
    }
}

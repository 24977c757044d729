//! The rules around a decoder that decodes whatever it gets: nothing after a loss until the next key picture, a loss for
//! each unit that gives no picture, and pictures in presentation order.

use millrace_cameras::{Decoder, Output, PictureInfo, Sink};
use millrace_frame::{PacketCodec, Size};
use millrace_ingest::{AccessUnit, Admission, Admitted, Loss, Reorder, ReorderPolicy};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a decoder gave no picture.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// It never will for this stream.
    Hopeless(String),
    /// It may from the next key picture on.
    Lost(String),
}

/// Takes pictures, with the number of their unit.
pub(crate) type NumberedSink<P> = Box<dyn FnMut(i64, P) + Send>;

/// A parser and decoder of one codec.
pub(crate) trait Parser: Send + 'static {
    type Picture: Send + 'static;

    /// Decodes a unit. The sink gets what comes out, from within this call.
    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError>;
    /// Gives the sink everything that is held back; a further unit begins a new stream.
    fn flush(&mut self) -> Result<(), DecodeError>;
}

/// Makes a parser and decoder for a codec.
pub(crate) type Make<D> =
    Box<dyn Fn(PacketCodec, NumberedSink<<D as Parser>::Picture>) -> Result<D, DecodeError> + Send>;

/// In which order a parser gives its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// As they are shown.
    InOrder,
    /// As they are decoded: they are put in order here, by the rules of the software decoder in live flow.
    Decoded,
}

/// Pictures that may be held beyond a stream's stated bound: a decoder has so many surfaces more than the stream needs.
const SPARE_SURFACES: u32 = 4;

/// A stream's decoder.
pub(crate) struct Stream<D: Parser> {
    make: Make<D>,
    inner: Option<(PacketCodec, D)>,
    /// The decoder may hold something.
    fed: bool,
    /// What is coded; another size is another encoder's.
    coded: Option<Size>,
    // used by the thread that feeds the decoder, and from within its calls
    output: Arc<Mutex<PictureOutput<D::Picture>>>,
}

/// Passes decoded pictures on to the sink: the pictures that the stream shows, in presentation order, and the losses.
struct PictureOutput<P> {
    admission: Admission,
    /// `None` where the parser gives its pictures in order.
    reorder: Option<Reorder<(PictureInfo, P)>>,
    sink: Sink<P>,
}

impl<P> PictureOutput<P> {
    fn decoded(&mut self, number: i64, picture: P) {
        let Some(unit) = self.admission.decoded(number) else { return };
        let picture_info = PictureInfo { timing: unit.timing, info: unit.info };
        let due = match &mut self.reorder {
            None if unit.shown => vec![(picture_info, picture)],
            None => Vec::new(),
            Some(reorder) if unit.shown => {
                let pushed = reorder.push(unit.place, (picture_info, picture));
                if pushed.late.is_some() {
                    (self.sink)(Output::Loss(Loss::reordered_late()));
                }
                pushed.due
            }
            Some(reorder) => reorder.pass(unit.place),
        };
        self.show(due);
    }

    fn show(&mut self, due: Vec<(PictureInfo, P)>) {
        due.into_iter().for_each(|(picture_info, picture)| (self.sink)(Output::Picture { picture_info, picture }));
    }

    /// The decoder was emptied: what is held back comes out, and what has not come by now never will.
    fn ended(&mut self) {
        let held = self.reorder.as_mut().map(Reorder::flush).unwrap_or_default();
        self.show(held);
        self.admission.ended();
    }

    fn report_losses(&mut self) {
        while let Some(loss) = self.admission.take_loss() {
            (self.sink)(Output::Loss(loss));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Parser> Stream<D> {
    pub(crate) fn new(make: Make<D>, given: Given, sink: Sink<D::Picture>) -> Self {
        let reorder = (given == Given::Decoded).then(|| Reorder::new(ReorderPolicy::Live).beyond_bound(SPARE_SURFACES));
        let output = Arc::new(Mutex::new(PictureOutput { admission: Admission::default(), reorder, sink }));
        Self { make, inner: None, fed: false, coded: None, output }
    }

    fn decode(&mut self, number: i64, unit: &AccessUnit) -> Result<(), String> {
        let codec = unit.info.codec;
        let inner = match self.inner.take().filter(|(of, _)| *of == codec) {
            Some((_, inner)) => inner,
            None => {
                let output = self.output.clone();
                // the sink may wait for long; nobody else takes this lock meanwhile
                let sink = Box::new(move |number, picture| lock(&output).decoded(number, picture));
                match (self.make)(codec, sink) {
                    Ok(inner) => inner,
                    Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) => return Err(why),
                }
            }
        };
        let (_, inner) = self.inner.insert((codec, inner));
        if self.coded.replace(unit.info.coded).is_some_and(|before| before != unit.info.coded)
            && let Some(reorder) = &mut lock(&self.output).reorder
        {
            reorder.forget();
        }
        lock(&self.output).admission.decoding(number, unit);
        self.fed = true;
        match inner.feed(unit, number) {
            Ok(()) => Ok(()),
            Err(DecodeError::Hopeless(why)) => Err(why),
            Err(DecodeError::Lost(why)) => {
                lock(&self.output).admission.failed(why);
                self.empty();
                Ok(())
            }
        }
    }

    /// Takes everything out of the decoder.
    fn empty(&mut self) {
        if std::mem::take(&mut self.fed)
            && let Some((_, inner)) = &mut self.inner
            && let Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) = inner.flush()
        {
            tracing::debug!("{why}");
            // the next key picture gets another
            self.inner = None;
        }
        lock(&self.output).ended();
    }
}

impl<D: Parser> Decoder for Stream<D> {
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String> {
        let admitted = lock(&self.output).admission.admit(unit);
        let result = match admitted {
            Admitted::Decode(number) => self.decode(number, unit),
            Admitted::Begin(number) => {
                self.empty();
                self.decode(number, unit)
            }
            Admitted::Stop => {
                self.empty();
                Ok(())
            }
            Admitted::Leave => Ok(()),
        };
        lock(&self.output).report_losses();
        result
    }

    fn flush(&mut self) {
        self.empty();
        let mut output = lock(&self.output);
        output.admission.finish();
        output.report_losses();
    }
}

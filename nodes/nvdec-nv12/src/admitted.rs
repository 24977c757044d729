//! The rules in front of a decoder that decodes whatever it gets: nothing after a loss until the next key picture, and a
//! loss for each unit that gives no picture.

use millrace_cameras::{Decoder, Output, Shown, Sink};
use millrace_frame::PacketCodec;
use millrace_ingest::{AccessUnit, Admission, Admitted};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a decoder gave no picture.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// It never will for this stream.
    Hopeless(String),
    /// It may from the next key picture on.
    Lost(String),
}

/// Takes pictures in presentation order, with the number of their unit.
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

/// A stream's decoder.
pub(crate) struct Stream<D: Parser> {
    make: Make<D>,
    inner: Option<(PacketCodec, D)>,
    /// The decoder may hold something.
    fed: bool,
    // Both are used by the thread that feeds the decoder, and from within its calls.
    admission: Arc<Mutex<Admission>>,
    sink: Arc<Mutex<Sink<D::Picture>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Parser> Stream<D> {
    pub(crate) fn new(make: Make<D>, sink: Sink<D::Picture>) -> Self {
        Self { make, inner: None, fed: false, admission: Arc::default(), sink: Arc::new(Mutex::new(sink)) }
    }

    fn decode(&mut self, number: i64, unit: &AccessUnit) -> Result<(), String> {
        let codec = unit.info.codec;
        let inner = match self.inner.take().filter(|(of, _)| *of == codec) {
            Some((_, inner)) => inner,
            None => match (self.make)(codec, self.numbered_sink()) {
                Ok(inner) => inner,
                Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) => return Err(why),
            },
        };
        let (_, inner) = self.inner.insert((codec, inner));
        lock(&self.admission).decoding(number, unit);
        self.fed = true;
        match inner.feed(unit, number) {
            Ok(()) => Ok(()),
            Err(DecodeError::Hopeless(why)) => Err(why),
            Err(DecodeError::Lost(why)) => {
                lock(&self.admission).failed(why);
                self.empty();
                Ok(())
            }
        }
    }

    fn numbered_sink(&self) -> NumberedSink<D::Picture> {
        let (admission, sink) = (self.admission.clone(), self.sink.clone());
        Box::new(move |number, picture| {
            // the sink may wait for long; nobody else takes this lock meanwhile
            let shown = lock(&admission).came_out(number);
            if let Some(shown) = shown {
                let shown = Shown { timing: shown.timing, info: shown.info };
                lock(&sink)(Output::Picture { shown, picture });
            }
        })
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
        lock(&self.admission).ended();
    }

    fn report_losses(&self) {
        loop {
            let Some(loss) = lock(&self.admission).take_loss() else { return };
            lock(&self.sink)(Output::Loss(loss));
        }
    }
}

impl<D: Parser> Decoder for Stream<D> {
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String> {
        let admitted = lock(&self.admission).admit(unit);
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
        self.report_losses();
        result
    }

    fn flush(&mut self) {
        self.empty();
        lock(&self.admission).finish();
        self.report_losses();
    }
}

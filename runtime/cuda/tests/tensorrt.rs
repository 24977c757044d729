//! Batches through an engine, on the stand-ins for TensorRT 8.6 and for the driver: what is in work at once, sizes of
//! batches, recorded work, errors. What the engine gives follows from the stand-in's description in its source.

use millrace_cuda_driver_folder::run_on_the_stand_in;

#[test]
fn on_the_stand_in() {
    run_on_the_stand_in("suite::", &[]);
}

#[test]
fn on_a_slow_stand_in() {
    run_on_the_stand_in("suite::", &[("MILLRACE_FAKE_CUDA_DELAY_US", "500")]);
}

mod suite {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use millrace_cuda::tensorrt::{Flight, Input, Session, Tensorrt, Work};
    use millrace_cuda::{DeviceMemory, Gpu, Span, Stream};
    use millrace_cuda_driver_folder::{STAND_IN, tensorrt};
    use std::collections::VecDeque;

    const ELEMENTS: usize = 3 * 16 * 24;
    const LEVEL: f32 = 2.0;

    /// A session of the stand-in's engine; nothing in the process that only starts this one.
    fn session(batches: &[[usize; 2]], in_flight: usize, replay: bool) -> Option<(Gpu, Session)> {
        std::env::var_os(STAND_IN)?;
        let library = Tensorrt::open(Some(&tensorrt()?)).unwrap();
        let gpu = Gpu::open(0).unwrap();
        let profiles: Vec<String> = batches.iter().map(|[least, most]| format!(" {least} {most}")).collect();
        let engine = library.load(&gpu, format!("stand-in {LEVEL}{}", profiles.concat()).as_bytes()).unwrap();
        let work = Work { shape: &[1, 3, 16, 24], batches, in_flight, replay };
        Some((gpu, engine.session(&work).unwrap()))
    }

    /// Whole numbers, others for each frame.
    fn frame(n: usize) -> Vec<f32> {
        (0..ELEMENTS).map(|i| ((7 * i + 13 * n) % (5 + n % 3)) as f32).collect()
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    /// Frames in host memory and on the GPU.
    struct Frames {
        host: Vec<Vec<u8>>,
        memory: Vec<DeviceMemory>,
    }

    impl Frames {
        fn new(gpu: &Gpu, count: usize) -> Self {
            let stream = Stream::new(gpu).unwrap();
            let host: Vec<Vec<u8>> = (0..count).map(|n| bytes(&frame(n))).collect();
            let memory = host.iter().map(|bytes| {
                let memory = DeviceMemory::allocate(gpu, bytes.len() as u64, "a frame").unwrap();
                stream.upload(bytes, memory.span()).unwrap();
                memory
            });
            Self { memory: memory.collect(), host }
        }

        /// Frame `n`, each third one in host memory.
        fn input(&self, n: usize) -> Input<'_> {
            if n % 3 == 2 { Input::Host(&self.host[n]) } else { Input::Gpu(self.memory[n].span()) }
        }
    }

    /// The flight of frames `from` on gives what the description says of each.
    fn is_right(flight: &Flight, from: usize) {
        flight.wait().unwrap();
        for n in 0..flight.inputs() {
            let outputs: Vec<_> = flight.outputs(n).collect();
            let numbers = |at: usize| -> Vec<f32> {
                outputs[at].bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
            };
            assert_eq!((outputs[0].name, outputs[0].shape), ("extra", &[1][..]));
            assert_eq!((outputs[1].name, outputs[1].shape), ("detections", &[6, 2, 3][..]));
            assert_eq!(numbers(0), [flight.inputs() as f32], "as many went through together as were given");
            let sum: f32 = frame(from + n).iter().sum();
            let expected: Vec<f32> = (1..=36).map(|k| k as f32 * sum + 1000.0 * LEVEL).collect();
            assert_eq!(numbers(1), expected, "frame {n} of {}", flight.inputs());
        }
    }

    #[test]
    fn every_number_of_inputs_gives_its_outputs_with_several_batches_in_work() {
        for (in_flight, replay) in [(1, false), (2, false), (3, true), (1, true)] {
            let Some((gpu, mut session)) = session(&[[2, 8], [1, 1]], in_flight, replay) else { return };
            assert_eq!(session.batch(), 8);
            let frames = Frames::new(&gpu, 20);
            let mut in_work = VecDeque::new();
            // each number of inputs alone, several times in a row, and mixed
            let in_a_row = [1, 2, 3, 4, 6, 7, 8].into_iter().flat_map(|count| std::iter::repeat_n(count, 7));
            for (n, count) in in_a_row.chain([8, 1, 8, 2, 8, 8, 1, 1, 8, 3, 8]).enumerate() {
                let from = n % 12;
                let inputs: Vec<Input<'_>> = (from..from + count).map(|n| frames.input(n)).collect();
                in_work.push_back((from, session.submit(&inputs).unwrap()));
                if in_work.len() == in_flight {
                    let (from, flight) = in_work.pop_front().unwrap();
                    is_right(&flight, from);
                }
            }
            in_work.iter().for_each(|(from, flight)| is_right(flight, *from));
            assert_eq!(session.replays(), replay);
        }
    }

    #[test]
    fn work_that_cannot_be_recorded_is_queued_by_itself() {
        let Some((gpu, mut session)) = session(&[[2, 8], [1, 1]], 2, true) else { return };
        let frames = Frames::new(&gpu, 8);
        for (n, count) in [1, 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5, 1, 1, 8, 8, 8, 8, 8, 8].into_iter().enumerate() {
            let inputs: Vec<Input<'_>> = (0..count).map(|n| frames.input(n)).collect();
            is_right(&session.submit(&inputs).unwrap(), 0);
            // the fourth batch of 5 is recorded, or would be
            assert_eq!(session.replays(), n < 9, "batch {n}");
        }
    }

    #[test]
    fn an_engine_of_one_frame_at_a_time() {
        let Some((gpu, mut session)) = session(&[[1, 1]], 2, true) else { return };
        let frames = Frames::new(&gpu, 12);
        for n in 0..12 {
            is_right(&session.submit(&[frames.input(n)]).unwrap(), n);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_the_next_batch_computed() {
        let Some((gpu, mut session)) = session(&[[2, 4], [1, 1]], 1, false) else { return };
        let frames = Frames::new(&gpu, 5);
        let all: Vec<Input<'_>> = (0..5).map(|n| frames.input(n)).collect();
        let short: Span = frames.memory[0].span().part(0, 100);
        let mut refusal = |inputs: &[Input<'_>]| session.submit(inputs).map(drop).unwrap_err().to_string();
        assert!(refusal(&[]).contains("input 'images': 0 at once, 1 to 4 are expected"));
        assert!(refusal(&all).contains("5 at once, 1 to 4 are expected"));
        for input in [Input::Gpu(short), Input::Host(&frames.host[0][..100])] {
            assert!(refusal(&[all[0], input]).contains("100 B, 4608 are expected"));
        }
        is_right(&session.submit(&all[1..4]).unwrap(), 1);
    }

    #[test]
    fn batches_and_sessions_go_in_any_order() {
        for replay in [false, true] {
            let Some((gpu, mut session)) = session(&[[2, 8], [1, 1]], 3, replay) else { return };
            let frames = Frames::new(&gpu, 3);
            let inputs: Vec<Input<'_>> = (0..3).map(|n| frames.input(n)).collect();
            for _ in 0..10 {
                // nobody waits for it
                drop(session.submit(&inputs).unwrap());
            }
            let flights: Vec<Flight> = (0..3).map(|_| session.submit(&inputs).unwrap()).collect();
            drop(session);
            flights.iter().for_each(|flight| is_right(flight, 0));
        }
    }

    #[test]
    fn the_engine_alone_has_a_time() {
        let Some((gpu, mut session)) = session(&[[2, 8], [1, 1]], 2, true) else { return };
        for replay in [false, true] {
            assert!(session.alone_ms(8, 3, replay).unwrap() >= 0.0);
        }
        assert!(session.alone_ms(9, 3, false).is_err());
        let frames = Frames::new(&gpu, 8);
        let inputs: Vec<Input<'_>> = (0..8).map(|n| frames.input(n)).collect();
        is_right(&session.submit(&inputs).unwrap(), 0);
    }
}

//! What a session makes of a parser's callbacks, on the stand-ins for the driver and for the decoder's library.

use millrace_cuda_driver_folder::run_on_the_stand_in;

#[test]
fn sessions_on_the_stand_in() {
    run_on_the_stand_in("nvdec::tests::session::suite::", &[]);
}

mod suite {
    use super::super::library::{self, DESTROYED, END_IS_IGNORED, MADE, MIN_SURFACES};
    use crate::nvdec::{Codec, NvdecError, Picture, PictureOrder, Session, SessionOptions};
    use crate::{Gpu, Stream};
    use millrace_cuda_driver_folder::on_trial;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    /// One test at a time: what the library counts is the process's.
    fn gpu() -> Option<(Gpu, MutexGuard<'static, ()>)> {
        static ONE: Mutex<()> = Mutex::new(());
        on_trial().then(|| (Gpu::open(0).unwrap(), ONE.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A session whose pictures arrive at the other end.
    fn session(gpu: &Gpu, options: SessionOptions) -> (Session, Receiver<Picture>) {
        let (to, pictures): (Sender<Picture>, _) = channel();
        let sink = Box::new(move |picture| drop(to.send(picture)));
        (Session::new(library::nvdec(), gpu, Codec::H264, options, sink).unwrap(), pictures)
    }

    fn options(order: PictureOrder, low_delay: bool) -> SessionOptions {
        SessionOptions { low_delay, order, ..SessionOptions::default() }
    }

    /// I P b b P b b ..., decoded in this order, by place in presentation; two are reordered at most.
    const PLACES: [u8; 10] = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8];

    fn unit(place: u8, depth: u8) -> [u8; 3] {
        [place, u8::from(place == 0), depth]
    }

    /// The numbers that came out after each unit, and what a flush adds.
    fn played(gpu: &Gpu, options: SessionOptions, depth: u8) -> (Vec<Vec<i64>>, Vec<i64>) {
        let (mut session, pictures) = session(gpu, options);
        let taken = || pictures.try_iter().map(|p| p.timestamp()).collect::<Vec<_>>();
        let each = PLACES.iter().enumerate().map(|(n, &place)| {
            // where nothing is reordered, pictures are shown as they are decoded
            let shown = if depth == 0 { n as i64 } else { i64::from(place) };
            session.feed(&unit(place, depth), i64::from(place), shown).unwrap();
            taken()
        });
        let each = each.collect();
        session.flush().unwrap();
        (each, taken())
    }

    #[test]
    fn a_picture_that_nothing_precedes_comes_out_with_its_own_unit() {
        let Some((gpu, _one)) = gpu() else { return };
        // in the order of decoding where nothing is reordered, without waiting for the next unit
        for order in [PictureOrder::Presentation, PictureOrder::Decoding] {
            let (each, rest) = played(&gpu, options(order, true), 0);
            let own: Vec<_> = PLACES.iter().map(|&place| vec![i64::from(place)]).collect();
            assert_eq!((each, rest), (own, vec![]), "{order:?}");
        }
    }

    #[test]
    fn in_presentation_order_only_what_may_still_be_preceded_is_held() {
        let Some((gpu, _one)) = gpu() else { return };
        let (each, rest) = played(&gpu, options(PictureOrder::Presentation, true), 2);
        let expected: [&[i64]; 10] = [&[], &[], &[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7]];
        assert_eq!(each, expected);
        assert_eq!(rest, [8, 9]);
        // four more where throughput comes first
        let (each, rest) = played(&gpu, options(PictureOrder::Presentation, false), 2);
        assert_eq!(each.concat(), [0, 1, 2, 3]);
        assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn numbers_stay_with_their_pictures_though_the_parser_sorts_their_times() {
        let Some((gpu, _one)) = gpu() else { return };
        let (mut session, pictures) = session(&gpu, options(PictureOrder::Presentation, true));
        for (number, place) in PLACES.into_iter().enumerate() {
            session.feed(&unit(place, 2), number as i64, 40_000_000 * i64::from(place)).unwrap();
        }
        session.flush().unwrap();
        let by_place = (0..10u8).map(|place| PLACES.iter().position(|&p| p == place).unwrap() as i64);
        assert!(pictures.try_iter().map(|p| p.timestamp()).eq(by_place));
    }

    #[test]
    fn in_decoding_order_every_picture_has_its_own_number() {
        let Some((gpu, _one)) = gpu() else { return };
        for low_delay in [false, true] {
            let (each, rest) = played(&gpu, options(PictureOrder::Decoding, low_delay), 2);
            assert_eq!(each.concat(), PLACES.map(i64::from));
            assert!(each.iter().all(|out| out.len() == 1) && rest.is_empty(), "{each:?}, {rest:?}");
        }
    }

    #[test]
    fn a_parser_that_decodes_a_unit_late_is_an_error_and_no_wrong_number() {
        let Some((gpu, _one)) = gpu() else { return };
        END_IS_IGNORED.store(true, Ordering::SeqCst);
        let (mut session, _pictures) = session(&gpu, options(PictureOrder::Decoding, true));
        let failed = (0..20u8).find_map(|n| session.feed(&unit(n, 0), n.into(), n.into()).err());
        END_IS_IGNORED.store(false, Ordering::SeqCst);
        let text = failed.unwrap().to_string();
        assert!(text.contains("it gave no picture for unit 0"), "{text}");
    }

    #[test]
    fn a_receiver_may_order_a_picture_buffer_on_the_thread_that_feeds() {
        let Some((gpu, _one)) = gpu() else { return };
        let depth = 4;
        let (mut session, pictures) = session(&gpu, options(PictureOrder::Decoding, true));
        let mut held = std::collections::VecDeque::new();
        for n in 0..100u8 {
            session.feed(&unit(n, depth), n.into(), n.into()).unwrap();
            held.extend(pictures.try_iter());
            if held.len() > usize::from(depth) {
                assert_eq!(held.pop_front().unwrap().timestamp(), i64::from(n - depth));
            }
        }
    }

    #[test]
    fn a_receiver_that_keeps_everything_gets_an_error_and_no_deadlock() {
        let Some((gpu, _one)) = gpu() else { return };
        let (mut session, pictures) = session(&gpu, options(PictureOrder::Decoding, true));
        let mut failed = None;
        for n in 0..64u8 {
            let began = Instant::now();
            if let Err(e) = session.feed(&unit(n, 2), n.into(), n.into()) {
                failed = Some((n, e, began.elapsed()));
                break;
            }
        }
        let (n, e, waited) = failed.unwrap();
        assert!(n > MIN_SURFACES, "after {n}");
        assert!(e.to_string().contains("is still held after 2 s"), "{e}");
        assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
        // let go, and the next key picture begins again
        drop(pictures.try_iter().collect::<Vec<_>>());
        session.restart().unwrap();
        session.feed(&unit(0, 2), 100, 100).unwrap();
        assert_eq!(pictures.try_iter().map(|p| p.timestamp()).collect::<Vec<_>>(), [100]);
    }

    #[test]
    fn a_flush_gives_everything_and_a_restart_nothing() {
        let Some((gpu, _one)) = gpu() else { return };
        let (mut session, pictures) = session(&gpu, options(PictureOrder::Presentation, false));
        let taken = || pictures.try_iter().map(|p| p.timestamp()).collect::<Vec<_>>();
        for n in 0..3u8 {
            session.feed(&unit(n, 2), n.into(), n.into()).unwrap();
        }
        session.flush().unwrap();
        assert_eq!(taken(), [0, 1, 2]);
        session.feed(&unit(0, 2), 10, 10).unwrap();
        session.restart().unwrap();
        session.feed(&unit(0, 2), 20, 20).unwrap();
        session.flush().unwrap();
        assert_eq!(taken(), [20], "what was held before the restart is forgotten");
    }

    #[test]
    fn a_decoder_is_destroyed_with_its_last_picture_and_left_where_the_process_ends() {
        let Some((gpu, _one)) = gpu() else { return };
        let counts = || (MADE.load(Ordering::SeqCst), DESTROYED.load(Ordering::SeqCst));
        let (made, destroyed) = counts();
        let (mut dropped, pictures) = session(&gpu, options(PictureOrder::Decoding, true));
        dropped.feed(&unit(0, 0), 0, 0).unwrap();
        drop(dropped);
        assert_eq!(counts(), (made + 1, destroyed), "a picture of it is held");
        drop(pictures);
        assert_eq!(counts(), (made + 1, destroyed + 1));
        let (mut left, pictures) = session(&gpu, options(PictureOrder::Decoding, true));
        left.feed(&unit(0, 0), 0, 0).unwrap();
        left.leave();
        let stream = Stream::new(&gpu).unwrap();
        let mapped = pictures.recv().unwrap().map(&stream).unwrap();
        assert_eq!(mapped.picture().timestamp(), 0, "what came out before can still be read");
        drop((mapped, pictures));
        assert_eq!(counts(), (made + 2, destroyed + 1), "it is left to the end of the process");
    }

    #[test]
    fn closing_ends_a_feed_that_waits_for_a_surface() {
        let Some((gpu, _one)) = gpu() else { return };
        let (mut session, pictures) = session(&gpu, options(PictureOrder::Presentation, true));
        let closer = session.closer();
        let (said, fed) = channel();
        let feeding = std::thread::spawn(move || {
            let failed = (0..64u8).find_map(|n| session.feed(&unit(n, 0), n.into(), n.into()).err());
            said.send(failed)
        });
        // nobody lets a picture go: in presentation order that has no limit
        assert!(fed.recv_timeout(Duration::from_millis(200)).is_err());
        closer.close();
        assert_eq!(fed.recv_timeout(Duration::from_secs(10)).unwrap(), Some(NvdecError::Closed));
        let _ = feeding.join();
        drop(pictures);
    }
}

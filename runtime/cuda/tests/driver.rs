//! What Millrace relies on of a driver, within one process. The same tests judge the real driver and the stand-in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

#[test]
fn on_the_stand_in() {
    common::on_the_stand_in(&[]);
}

#[test]
fn on_a_slow_stand_in() {
    common::on_the_stand_in(&[("MILLRACE_FAKE_CUDA_DELAY_US", "2000")]);
}

mod suite {
    #![allow(unsafe_code, reason = "launches, and copies that nobody waits for")]
    use crate::common::{PATIENCE, gpu, pattern};
    use millrace_cuda::{
        Attribute, CudaError, DeviceMemory, Event, Gpu, Grid, Module, PinnedMemory, Rows, Stream, Waker,
    };
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Instant;

    fn download(stream: &Stream, memory: &DeviceMemory) -> Vec<u8> {
        let mut bytes = vec![0; memory.span().bytes() as usize];
        stream.download(memory.span(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_device_says_what_it_is() {
        let Some(gpu) = gpu() else { return };
        assert!(!gpu.name().is_empty());
        assert_ne!(gpu.uuid(), [0; 16]);
        assert_eq!(gpu.uuid(), Gpu::open(0).unwrap().uuid(), "it is the same each time");
        assert_eq!(gpu.pci_bus_id().unwrap().matches(':').count(), 2);
        assert!(gpu.attribute(Attribute::MultiprocessorCount).unwrap() > 0);
        assert!(gpu.compute_capability().unwrap() >= (7, 5), "older ones are not supported");
        let (free, total) = gpu.memory_bytes().unwrap();
        assert!(0 < free && free <= total, "{free} of {total}");
        assert!(millrace_cuda::driver_version().unwrap() >= 12_000);
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let Some(_) = gpu() else { return };
        let count = millrace_cuda::device_count().unwrap();
        assert_eq!(Gpu::open(count).unwrap_err(), CudaError::NoSuchDevice { ordinal: count, count });
    }

    #[test]
    fn bytes_come_back_as_they_went() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        for bytes in [1, 255, 4096, 4097, 3_110_400] {
            let (there, sent) = (DeviceMemory::allocate(&gpu, bytes as u64, "a test").unwrap(), pattern(bytes, 1));
            stream.upload(&sent, there.span()).unwrap();
            assert!(download(&stream, &there) == sent, "{bytes} bytes");
        }
    }

    #[test]
    fn a_part_is_filled_and_its_neighbours_are_not() {
        let Some(gpu) = gpu() else { return };
        let (stream, memory) = (Stream::new(&gpu).unwrap(), DeviceMemory::allocate(&gpu, 1000, "a test").unwrap());
        let mut expected = pattern(1000, 2);
        stream.upload(&expected, memory.span()).unwrap();
        stream.fill(memory.span().part(123, 77), 0x5c).unwrap();
        expected[123..200].fill(0x5c);
        assert_eq!(download(&stream, &memory), expected);
    }

    #[test]
    fn rows_are_copied_between_pitches_and_gaps_stay() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        let (row, rows, from_pitch, to_pitch) = (37usize, 11usize, 64usize, 41usize);
        let (sent, mut expected) = (pattern(from_pitch * rows, 3), pattern(to_pitch * rows, 4));
        let from = DeviceMemory::allocate(&gpu, sent.len() as u64, "a test").unwrap();
        let to = DeviceMemory::allocate(&gpu, expected.len() as u64, "a test").unwrap();
        stream.upload(&sent, from.span()).unwrap();
        stream.upload(&expected, to.span()).unwrap();
        let shape = Rows {
            row_bytes: row as u64,
            rows: rows as u64,
            from_pitch_bytes: from_pitch as u64,
            to_pitch_bytes: to_pitch as u64,
        };
        stream.copy_rows(from.span(), to.span(), shape).unwrap();
        for y in 0..rows {
            expected[y * to_pitch..y * to_pitch + row].copy_from_slice(&sent[y * from_pitch..y * from_pitch + row]);
        }
        assert_eq!(download(&stream, &to), expected);
        let short = Rows { rows: rows as u64 + 1, ..shape };
        assert!(matches!(stream.copy_rows(from.span(), to.span(), short), Err(CudaError::Misuse { .. })));
    }

    #[test]
    fn pinned_memory_is_copied_both_ways_without_waiting() {
        let Some(gpu) = gpu() else { return };
        let (stream, bytes) = (Stream::new(&gpu).unwrap(), 100_000);
        let there = DeviceMemory::allocate(&gpu, bytes as u64, "a test").unwrap();
        let mut from = PinnedMemory::allocate(&gpu, bytes, "a test").unwrap();
        let mut to = PinnedMemory::allocate(&gpu, bytes, "a test").unwrap();
        assert!(to.bytes().iter().all(|&byte| byte == 0), "it begins as zero");
        from.bytes_mut().copy_from_slice(&pattern(bytes, 5));
        // SAFETY: neither is touched before `synchronize`.
        unsafe {
            stream.upload_unordered(from.bytes(), there.span()).unwrap();
            stream.download_unordered(there.span(), to.bytes_mut()).unwrap();
        }
        stream.synchronize().unwrap();
        assert!(to.bytes() == pattern(bytes, 5));
    }

    #[test]
    fn pageable_memory_is_read_and_written_before_the_call_returns() {
        let Some(gpu) = gpu() else { return };
        let (stream, bytes) = (Stream::new(&gpu).unwrap(), 3_000_000);
        let there = DeviceMemory::allocate(&gpu, bytes as u64, "a test").unwrap();
        let (mut from, mut to) = (pattern(bytes, 6), vec![0; bytes]);
        // SAFETY: of pageable memory the driver makes a copy, or waits: that is what is on trial here.
        unsafe { stream.upload_unordered(&from, there.span()) }.unwrap();
        from.fill(0xdd);
        // SAFETY: as above.
        unsafe { stream.download_unordered(there.span(), &mut to) }.unwrap();
        let got = std::hint::black_box(to.clone());
        stream.synchronize().unwrap();
        assert!(got == pattern(bytes, 6));
    }

    #[test]
    fn recorded_work_is_done_as_often_as_it_is_replayed() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        let memory = DeviceMemory::allocate(&gpu, 1 << 16, "a test").unwrap();
        stream.fill(memory.span(), 1).unwrap();
        let half = memory.span().part(0, 1 << 15);
        let mut graph = stream.record_graph(|| stream.fill(half, 7)).unwrap();
        assert!(download(&stream, &memory).iter().all(|&byte| byte == 1), "recording does nothing");
        for fill in [2, 3] {
            stream.fill(memory.span(), fill).unwrap();
            // SAFETY: the memory is there until the download has waited for the stream.
            unsafe { stream.replay(&mut graph) }.unwrap();
            let bytes = download(&stream, &memory);
            let (first, second) = bytes.split_at(1 << 15);
            assert!(first.iter().all(|&byte| byte == 7) && second.iter().all(|&byte| byte == fill));
        }
        // what waits cannot be recorded; the stream goes on
        assert!(stream.record_graph(|| stream.synchronize()).is_err());
        let ours = stream.copy(half.part(0, 1), half.part(0, 2)).unwrap_err();
        assert_eq!(stream.record_graph(|| Err(ours.clone())).unwrap_err(), ours);
        stream.fill(memory.span(), 9).unwrap();
        assert!(download(&stream, &memory).iter().all(|&byte| byte == 9));
    }

    #[test]
    fn a_stream_keeps_its_order() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        let memory = [(); 2].map(|()| DeviceMemory::allocate(&gpu, 1 << 20, "a test").unwrap());
        for byte in 0..50 {
            stream.fill(memory[0].span(), byte).unwrap();
            stream.copy(memory[0].span(), memory[1].span()).unwrap();
            stream.fill(memory[0].span(), 0xff).unwrap();
        }
        assert!(download(&stream, &memory[1]).iter().all(|&byte| byte == 49));
        assert!(download(&stream, &memory[0]).iter().all(|&byte| byte == 0xff));
    }

    #[test]
    fn an_event_orders_two_streams() {
        let Some(gpu) = gpu() else { return };
        let (writes, reads) = (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap());
        let memory = DeviceMemory::allocate(&gpu, 32 << 20, "a test").unwrap();
        let copy = DeviceMemory::allocate(&gpu, 32 << 20, "a test").unwrap();
        let (written, read) = (Event::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
        for round in 0..8 {
            writes.wait(&read).unwrap();
            writes.fill(memory.span(), 0xee).unwrap();
            writes.fill(memory.span(), round).unwrap();
            writes.record(&written).unwrap();
            reads.wait(&written).unwrap();
            reads.copy(memory.span(), copy.span()).unwrap();
            reads.record(&read).unwrap();
            let got = download(&reads, &copy);
            assert!(got.iter().all(|&byte| byte == round), "round {round}");
        }
        assert!(written.is_done().unwrap() && read.is_done().unwrap());
    }

    #[test]
    fn an_event_is_done_when_it_was_never_recorded_and_when_it_was_reached() {
        let Some(gpu) = gpu() else { return };
        let (stream, event) = (Stream::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
        assert!(event.is_done().unwrap());
        event.synchronize().unwrap();
        let (go, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        // a host function holds the stream up until we say so
        stream.wake(&Waker::new(move || held.lock().unwrap().recv_timeout(PATIENCE).unwrap())).unwrap();
        stream.record(&event).unwrap();
        assert!(!event.is_done().unwrap(), "the stream is held up before it");
        go.send(()).unwrap();
        event.synchronize().unwrap();
        assert!(event.is_done().unwrap());
    }

    #[test]
    fn a_wait_counts_from_when_it_was_queued() {
        let Some(gpu) = gpu() else { return };
        if std::env::var_os("MILLRACE_GPU").is_some() {
            // Seen with driver 580 on an H200: while a host function blocks, other streams' events wait too. Ours never
            // block, and nothing else here could hold a stream up for long on both drivers.
            return millrace_needs::skip_without("stand_in", "host functions hold up other streams' events on a GPU");
        }
        let (held_up, waits, event) =
            (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
        let (go, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        waits.wait(&event).unwrap();
        held_up.wake(&Waker::new(move || held.lock().unwrap().recv_timeout(PATIENCE).unwrap())).unwrap();
        held_up.record(&event).unwrap();
        let passed = Event::new(&gpu).unwrap();
        waits.record(&passed).unwrap();
        let until = Instant::now() + PATIENCE / 2; // before the host function gives up
        while !passed.is_done().unwrap() {
            assert!(Instant::now() < until, "it waits for the later recording");
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        held_up.synchronize().unwrap();
    }

    #[test]
    fn a_waker_is_called_once_and_after_the_work() {
        let Some(gpu) = gpu() else { return };
        let (stream, calls) = (Stream::new(&gpu).unwrap(), Arc::new(AtomicU32::new(0)));
        let memory = DeviceMemory::allocate(&gpu, 16 << 20, "a test").unwrap();
        let event = Arc::new(Event::new(&gpu).unwrap());
        let (sender, receiver) = mpsc::channel();
        let counts = calls.clone();
        let waker = Waker::new(move || {
            counts.fetch_add(1, Ordering::SeqCst);
            sender.send(()).unwrap();
        });
        stream.fill(memory.span(), 1).unwrap();
        stream.record(&event).unwrap();
        stream.wake(&waker).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap();
        assert!(event.is_done().unwrap(), "what was before is done");
        stream.synchronize().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        stream.wake(&waker).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2, "once for each time that it was queued");
    }

    #[test]
    fn time_passes_between_timed_events() {
        let Some(gpu) = gpu() else { return };
        let (stream, memory) = (Stream::new(&gpu).unwrap(), DeviceMemory::allocate(&gpu, 1 << 20, "a test").unwrap());
        let (start, end) = (Event::timed(&gpu).unwrap(), Event::timed(&gpu).unwrap());
        stream.record(&start).unwrap();
        for byte in 0..20 {
            stream.fill(memory.span(), byte).unwrap();
        }
        stream.record(&end).unwrap();
        stream.synchronize().unwrap();
        let ms = end.ms_since(&start).unwrap();
        assert!(ms > 0.0 && ms < PATIENCE.as_millis() as f32, "{ms} ms");
        let untimed = Event::new(&gpu).unwrap();
        stream.record(&untimed).unwrap();
        stream.synchronize().unwrap();
        untimed.ms_since(&start).unwrap_err();
    }

    #[test]
    fn memory_that_is_not_there_is_refused_with_its_size() {
        let Some(gpu) = gpu() else { return };
        let error = DeviceMemory::allocate(&gpu, 1 << 45, "16 slots of pool decode/frame").unwrap_err();
        assert_eq!(error.code(), Some(2), "{error}");
        let text = error.to_string();
        for part in ["cuMemAlloc", "35184372088832 B of 16 slots of pool decode/frame", "device 0", "lower SLOTS"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
        DeviceMemory::allocate(&gpu, 4096, "a test").unwrap();
    }

    #[test]
    fn what_is_no_module_is_refused_in_the_compilers_words() {
        let Some(gpu) = gpu() else { return };
        let error = Module::load(&gpu, "broken", "this is not PTX").unwrap_err();
        let text = error.to_string();
        // 218 by the driver's page; driver 580 takes text that is no PTX for another kind of image, and says 200
        assert!(matches!(error.code(), Some(200 | 218)), "{text}");
        assert!(text.contains("module broken [") && !text.contains("broken []"), "{text}");
        assert!(text.contains("CUDA_ERROR_INVALID_"), "{text}");
    }

    /// `to[i] = value + i` for the first `count`.
    const PTX: &str = "
.version 7.0
.target sm_75
.address_size 64
.visible .entry conformance_count(.param .u64 p_to, .param .u32 p_value, .param .u32 p_count)
{
    .reg .pred %p<2>;
    .reg .b32 %r<8>;
    .reg .b64 %d<5>;
    ld.param.u64 %d1, [p_to];
    ld.param.u32 %r1, [p_value];
    ld.param.u32 %r2, [p_count];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.u32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r6, %r2;
    @%p1 bra DONE;
    cvta.to.global.u64 %d2, %d1;
    mul.wide.u32 %d3, %r6, 4;
    add.u64 %d4, %d2, %d3;
    add.u32 %r7, %r1, %r6;
    st.global.u32 [%d4], %r7;
DONE:
    ret;
}
";

    #[test]
    fn a_kernel_runs_with_the_arguments_of_its_launch() {
        let Some(gpu) = gpu() else { return };
        let module = Module::load(&gpu, "conformance", PTX).unwrap();
        let missing = module.function("no_such_kernel").unwrap_err();
        assert_eq!(missing.code(), Some(500), "{missing}");
        assert!(missing.to_string().contains("kernel no_such_kernel of module conformance"), "{missing}");
        let function = module.function("conformance_count").unwrap();
        let (stream, memory) = (Stream::new(&gpu).unwrap(), DeviceMemory::allocate(&gpu, 4000, "a test").unwrap());
        stream.fill(memory.span(), 0xab).unwrap();
        let grid = Grid { blocks: [8, 1, 1], threads: [128, 1, 1] };
        let (mut to, mut value, mut count) = (memory.span().ptr(), 1_000_000u32, 997u32);
        let mut arguments: [*mut c_void; 3] = [(&raw mut to).cast(), (&raw mut value).cast(), (&raw mut count).cast()];
        // SAFETY: three arguments of the kernel's types; the memory lives until the download has been waited for.
        unsafe { function.launch(&stream, grid, 0, &mut arguments) }.unwrap();
        (to, value, count) = (0, 7, 0); // by value: what they are now no longer matters
        std::hint::black_box((to, value, count));
        let words: Vec<u32> = download(&stream, &memory)
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let expected: Vec<u32> = (0..1000).map(|i| if i < 997 { 1_000_000 + i } else { 0xabab_abab }).collect();
        assert_eq!(words, expected);
        let too_many = Grid { blocks: [1, 1, 1], threads: [2048, 1, 1] };
        // SAFETY: as above; and it is refused.
        let error = unsafe { function.launch(&stream, too_many, 0, &mut arguments) }.unwrap_err();
        assert!(error.to_string().contains("conformance_count") && error.to_string().contains("2048"), "{error}");
    }

    #[test]
    fn a_handle_of_this_process_is_not_opened_in_it() {
        let Some(gpu) = gpu() else { return };
        let memory = DeviceMemory::allocate(&gpu, 4096, "a test").unwrap();
        let handle = memory.export_ipc().unwrap();
        assert_eq!(memory.export_ipc().unwrap(), handle, "it is the same each time");
        assert_eq!(DeviceMemory::open_ipc(&gpu, handle, 4096).unwrap_err().code(), Some(201));
        let event = Event::interprocess(&gpu).unwrap();
        let handle = event.export().unwrap();
        assert_eq!(event.export().unwrap(), handle, "it is the same each time");
        assert_eq!(Event::open(&gpu, handle).unwrap_err().code(), Some(201));
        Event::new(&gpu).unwrap().export().unwrap_err();
    }
}

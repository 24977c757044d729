//! What Millrace relies on of a driver, between processes, also when they are killed. The same tests judge the real
//! driver and the stand-in. Children are this very binary, in the role that their environment names.
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
    use crate::common::{PATIENCE, gpu, pattern};
    use millrace_cuda::{DeviceMemory, Event, Gpu, Stream, Waker};
    use rustix::process::{PTracer, Pid, PidfdFlags, PidfdGetfdFlags};
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::process::{Child, ChildStdin, Command, Stdio};
    use std::sync::mpsc;
    use std::time::Duration;

    const BYTES: u64 = 300_000;
    const SEED: u64 = 9;
    const ROLE: &str = "MILLRACE_ROLE";

    /// A process in a role of [`child`], which answers each line by a line. Killed when dropped.
    struct Process {
        child: Child,
        stdin: Option<ChildStdin>,
        says: mpsc::Receiver<String>,
    }

    impl Process {
        fn start(role: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "suite::child", "--nocapture"])
                .env(ROLE, role)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let (stdin, stderr) = (child.stdin.take(), BufReader::new(child.stderr.take().unwrap()));
            let (send, says) = mpsc::channel();
            // read at once, so that no full pipe slows it
            std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
            Self { child, stdin, says }
        }

        fn line(&self) -> String {
            self.says.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("it says nothing more: {e}"))
        }

        fn ask(&mut self, line: &str) -> String {
            self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
            self.line()
        }

        fn kill(&mut self) {
            self.child.kill().unwrap();
            let status = self.child.wait().unwrap();
            assert!(!status.success(), "it had ended by itself: {:?}", Vec::from_iter(self.says.iter()));
        }

        /// Ends its input and waits for its end, which must be a good one.
        fn end(mut self) {
            drop(self.stdin.take());
            let status = self.child.wait().unwrap();
            assert!(status.success(), "{status}: {:?}", Vec::from_iter(self.says.iter()));
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn hex(handle: [u8; 64]) -> String {
        handle.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> [u8; 64] {
        let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
        std::array::from_fn(byte)
    }

    fn say(what: impl std::fmt::Display) {
        std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    fn download(stream: &Stream, memory: &DeviceMemory) -> Vec<u8> {
        let mut bytes = vec![0; memory.span().bytes() as usize];
        stream.download(memory.span(), &mut bytes).unwrap();
        bytes
    }

    /// The one value of all bytes, or that there are several.
    fn value(bytes: &[u8]) -> String {
        match bytes.iter().all(|byte| *byte == bytes[0]) {
            true => bytes[0].to_string(),
            false => "several".into(),
        }
    }

    /// Not a test, but what the processes that the tests start do.
    #[test]
    fn child() {
        let Ok(role) = std::env::var(ROLE) else { return };
        let gpu = Gpu::open(0).unwrap();
        match role.split_once(' ') {
            Some(("open", handle)) => opener(&gpu, unhex(handle)),
            _ if role == "owner" => owner(&gpu),
            _ if role == "owner by descriptor" => owner_by_descriptor(&gpu),
            _ if role == "waiter" => waiter(&gpu),
            _ => panic!("there is no role {role}"),
        }
    }

    fn owner(gpu: &Gpu) {
        let stream = Stream::new(gpu).unwrap();
        let mut memory = Some(DeviceMemory::allocate(gpu, BYTES, "a test").unwrap());
        let event = Event::interprocess(gpu).unwrap();
        stream.upload(&pattern(BYTES as usize, SEED), memory.as_ref().unwrap().span()).unwrap();
        say(hex(memory.as_ref().unwrap().export_ipc().unwrap()));
        say(hex(event.export().unwrap()));
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("fill", byte)) => {
                    let span = memory.as_ref().unwrap().span();
                    // wrong bytes first: who does not wait for the event may see them
                    stream.fill(span, 0xee).unwrap();
                    stream.fill(span, byte.parse().unwrap()).unwrap();
                    stream.record(&event).unwrap();
                    say("queued");
                }
                _ if line == "look" => say(value(&download(&stream, memory.as_ref().unwrap()))),
                _ if line == "hold" => {
                    // until it is killed, this process's stream does not come to the event
                    stream.wake(&Waker::new(|| std::thread::sleep(2 * PATIENCE))).unwrap();
                    stream.record(&event).unwrap();
                    say("held");
                }
                _ if line == "free" => {
                    memory = None;
                    say("freed");
                }
                _ => panic!("what is '{line}'?"),
            }
        }
    }

    fn owner_by_descriptor(gpu: &Gpu) {
        // where a system lets only a debugger take descriptors; one that does not know the call needs it not
        let _ = rustix::process::set_ptracer(PTracer::Any);
        let stream = Stream::new(gpu).unwrap();
        let memory = DeviceMemory::allocate_shareable(gpu, BYTES, "a test").unwrap();
        stream.upload(&pattern(BYTES as usize, SEED), memory.span()).unwrap();
        say(memory.descriptor().unwrap().as_raw_fd());
        say(memory.mapped_bytes());
        std::io::stdin().lines().map_while(Result::ok).for_each(drop);
    }

    fn opener(gpu: &Gpu, handle: [u8; 64]) {
        let memory = DeviceMemory::open_ipc(gpu, handle, BYTES).unwrap();
        say(value(&download(&Stream::new(gpu).unwrap(), &memory)));
        std::io::stdin().lines().map_while(Result::ok).for_each(drop);
    }

    /// An owner, what it exported and a stream of ours.
    fn start_owner(gpu: &Gpu) -> (Process, [u8; 64], [u8; 64], Stream) {
        let owner = Process::start("owner");
        let (memory, event) = (unhex(&owner.line()), unhex(&owner.line()));
        (owner, memory, event, Stream::new(gpu).unwrap())
    }

    #[test]
    fn memory_of_another_process_is_read_and_written() {
        let Some(gpu) = gpu() else { return };
        let (mut owner, handle, _, stream) = start_owner(&gpu);
        let memory = DeviceMemory::open_ipc(&gpu, handle, BYTES).unwrap();
        assert!(download(&stream, &memory) == pattern(BYTES as usize, SEED));
        let again = DeviceMemory::open_ipc(&gpu, handle, BYTES).unwrap();
        assert_eq!(again.span(), memory.span(), "opened twice, it is at one address");
        drop(memory);
        stream.fill(again.span(), 66).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(owner.ask("look"), "66", "and stays until it was let go twice");
        drop(again);
        owner.end();
    }

    #[test]
    fn an_event_orders_streams_of_two_processes() {
        let Some(gpu) = gpu() else { return };
        let (mut owner, handle, event, stream) = start_owner(&gpu);
        let memory = DeviceMemory::open_ipc(&gpu, handle, BYTES).unwrap();
        let event = Event::open(&gpu, event).unwrap();
        assert!(event.is_done().unwrap(), "it was never recorded");
        for round in 0..50 {
            assert_eq!(owner.ask(&format!("fill {round}")), "queued");
            stream.wait(&event).unwrap();
            assert_eq!(value(&download(&stream, &memory)), round.to_string());
            assert!(event.is_done().unwrap());
        }
        drop((memory, event));
        owner.end();
    }

    /// So a process that queues a wait for another process has to be ended when that process is killed.
    #[test]
    fn what_waits_for_an_owner_that_is_killed_waits_for_ever_and_everything_else_goes_on() {
        let Some(_) = gpu() else { return };
        // in a process of its own: memory that such a stream may use cannot be freed
        let mut waiter = Process::start("waiter");
        assert_eq!(waiter.line(), "waits, and the rest goes on");
        waiter.kill();
    }

    fn waiter(gpu: &Gpu) {
        let (mut owner, handle, event, stream) = start_owner(gpu);
        let memory = DeviceMemory::open_ipc(gpu, handle, BYTES).unwrap();
        let event = Event::open(gpu, event).unwrap();
        assert_eq!(owner.ask("hold"), "held");
        let (sender, receiver) = mpsc::channel();
        stream.wait(&event).unwrap();
        stream.wake(&Waker::new(move || sender.send(()).unwrap())).unwrap();
        assert!(!event.is_done().unwrap());
        owner.kill();
        receiver.recv_timeout(Duration::from_secs(3)).unwrap_err();
        assert!(!event.is_done().unwrap());
        assert!(download(&Stream::new(gpu).unwrap(), &memory) == pattern(BYTES as usize, SEED), "its memory stays");
        say("waits, and the rest goes on");
        std::thread::sleep(2 * PATIENCE);
    }

    #[test]
    fn what_a_dead_process_exported_is_not_opened() {
        let Some(gpu) = gpu() else { return };
        let (mut owner, memory, event, _) = start_owner(&gpu);
        owner.kill();
        let error = DeviceMemory::open_ipc(&gpu, memory, BYTES).unwrap_err();
        // driver 580 on an H200 says 400, an invalid handle
        assert!(matches!(error.code(), Some(1 | 400)), "{error}");
        // nothing relies on what becomes of the event: driver 580 refuses it on a machine with one H200, and opens it on one
        // with two
        drop(Event::open(&gpu, event));
    }

    #[test]
    fn what_was_freed_is_not_opened() {
        let Some(gpu) = gpu() else { return };
        let (mut owner, memory, _, _) = start_owner(&gpu);
        assert_eq!(owner.ask("free"), "freed");
        let error = DeviceMemory::open_ipc(&gpu, memory, BYTES).unwrap_err();
        assert_eq!(error.code(), Some(1), "{error}");
        assert!(error.to_string().contains("300000 B of another process"), "{error}");
        owner.end();
    }

    #[test]
    fn a_reader_that_is_killed_lets_its_memory_go() {
        let Some(gpu) = gpu() else { return };
        let (stream, memory) = (Stream::new(&gpu).unwrap(), DeviceMemory::allocate(&gpu, BYTES, "a test").unwrap());
        stream.fill(memory.span(), 77).unwrap();
        stream.synchronize().unwrap();
        let mut reader = Process::start(&format!("open {}", hex(memory.export_ipc().unwrap())));
        assert_eq!(reader.line(), "77");
        reader.kill();
        stream.fill(memory.span(), 78).unwrap();
        assert_eq!(value(&download(&stream, &memory)), "78");
        drop(memory);
        stream.synchronize().unwrap();
    }

    fn take(from: &Process, fd: i32) -> OwnedFd {
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&from.child), PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).unwrap()
    }

    #[test]
    fn memory_is_shared_by_a_descriptor_and_outlives_its_maker() {
        let Some(gpu) = gpu() else { return };
        let mut owner = Process::start("owner by descriptor");
        let (fd, mapped_bytes): (i32, u64) = (owner.line().parse().unwrap(), owner.line().parse().unwrap());
        assert!(mapped_bytes >= BYTES);
        let stream = Stream::new(&gpu).unwrap();
        let memory = DeviceMemory::open_descriptor(&gpu, take(&owner, fd), BYTES, mapped_bytes).unwrap();
        assert!(download(&stream, &memory) == pattern(BYTES as usize, SEED));
        owner.kill();
        assert!(download(&stream, &memory) == pattern(BYTES as usize, SEED), "also when its maker is dead");
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        let Some(gpu) = gpu() else { return };
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = DeviceMemory::open_descriptor(&gpu, null.into(), BYTES, 1 << 21).unwrap_err();
        assert!(error.to_string().contains("cuMemImportFromShareableHandle"), "{error}");
    }
}

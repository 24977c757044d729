//! System calls, by seccomp: a list of those that are refused.
//!
//! The decoders' libraries are not ours, and neither is glibc: a list of what they need would be wrong at their next
//! release. What no decoder does is known.

use crate::Error;
use libc::c_long;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
    apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Other programs, and other processes' memory, descriptors and signals.
const PROCESSES: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_setns,
    libc::SYS_unshare,
];

/// Who the process is.
const IDENTITY: &[c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// The machine, and parts of the kernel that were often its weak places.
const MACHINE: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    // a server: what the process listens on, it listens on by now
    libc::SYS_listen,
];

/// Who may do what to a file. Landlock does not restrict these.
const FILES: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    libc::SYS_utimensat,
    FILE_SETATTR,
];

// newer than the libc crate: one number on all architectures
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// Calls that other architectures do without.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib];
#[cfg(target_arch = "x86_64")]
const OLD_FILES: &[c_long] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLD_FILES: &[c_long] = &[];

/// x86-64 has each call a second time for programs of 32-bit pointers, by its number with this bit.
#[cfg(target_arch = "x86_64")]
const TWINS: &[c_long] = &[0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const TWINS: &[c_long] = &[0];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refuses the calls to all threads.
pub(crate) fn refuse(files: bool) -> Result<(), Error> {
    filters(files)?.iter().try_for_each(|filter| apply_filter_all_threads(filter)).map_err(Error::from)
}

/// Refuses the calls to this thread.
pub(crate) fn refuse_here(files: bool) -> Result<(), Error> {
    filters(files)?.iter().try_for_each(|filter| apply_filter(filter)).map_err(Error::from)
}

/// Two filters, since one answers with one error: `clone3` hides what it is asked for in memory, and where there is none,
/// glibc falls back to `clone`, which does not.
fn filters(files: bool) -> Result<[BpfProgram; 2], Error> {
    let refused = compile(refused(files)?, libc::EPERM)?;
    Ok([refused, compile(twins([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?])
}

fn compile(rules: Rules, error: i32) -> Result<BpfProgram, Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(error as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()?)
}

fn twins(rules: impl IntoIterator<Item = (c_long, Vec<SeccompRule>)>) -> Rules {
    let both = rules.into_iter().flat_map(|(call, rules)| TWINS.iter().map(move |twin| (call | twin, rules.clone())));
    both.collect()
}

fn refused(files: bool) -> Result<Rules, Error> {
    let of_files = [FILES, OLD_FILES];
    let lists = [PROCESSES, IDENTITY, MACHINE, OLD].into_iter().chain(of_files.into_iter().filter(|_| files));
    let whole = lists.flatten().map(|call| (*call, Vec::new()));
    Ok(twins(whole.chain(partly()?)))
}

/// Calls that are refused by what they ask for.
fn partly() -> Result<Vec<(c_long, Vec<SeccompRule>)>, BackendError> {
    let me = u64::from(std::process::id());
    // the same number as a signed argument: a group of processes
    let my_group = u64::from(std::process::id().wrapping_neg());
    let others = || all(&[(0, Ne, me)]);
    let flag = |argument, flag: i32| {
        let flag = flag as u32 as u64;
        all(&[(argument, MaskedEq(flag), flag)])
    };
    // raw sockets, and the protocols that would go around the limits on ports: those of TCP hold for TCP alone
    let internet = |family: i32| {
        let with = |more: &[(u8, SeccompCmpOp, u64)]| all(&[&[(0, Eq, family as u64)][..], more].concat());
        let known = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(|protocol| (2, Ne, protocol as u64));
        Ok::<_, BackendError>(vec![with(&[(1, MaskedEq(0xff), libc::SOCK_RAW as u64)])?, with(&known)?])
    };
    let families =
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| (0, Ne, family as u64));
    // glibc asks for the machine's addresses by this protocol when it looks up a name
    let netlink = all(&[(0, Eq, libc::AF_NETLINK as u64), (2, Ne, libc::NETLINK_ROUTE as u64)])?;
    let sockets = [vec![all(&families)?, netlink], internet(libc::AF_INET)?, internet(libc::AF_INET6)?];
    Ok(vec![
        (libc::SYS_socket, sockets.concat()),
        // a connection that is no connect(2)
        (libc::SYS_sendto, vec![flag(3, libc::MSG_FASTOPEN)?]),
        (libc::SYS_sendmsg, vec![flag(2, libc::MSG_FASTOPEN)?]),
        (libc::SYS_sendmmsg, vec![flag(3, libc::MSG_FASTOPEN)?]),
        // a process: what has no CLONE_THREAD
        (libc::SYS_clone, vec![all(&[(0, MaskedEq(libc::CLONE_THREAD as u64), 0)])?]),
        // signal 0 asks whether a process exists
        (libc::SYS_kill, vec![all(&[(0, Ne, me), (0, Ne, my_group), (0, Ne, 0), (1, Ne, 0)])?]),
        (libc::SYS_tgkill, vec![others()?]),
        (libc::SYS_rt_sigqueueinfo, vec![others()?]),
        (libc::SYS_rt_tgsigqueueinfo, vec![others()?]),
        // keys pressed in a terminal that another program reads
        (libc::SYS_ioctl, vec![all(&[(1, Eq, libc::TIOCSTI)])?, all(&[(1, Eq, libc::TIOCLINUX)])?]),
    ])
}

/// A call of which all of this is true: by argument, comparison and number.
fn all(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let condition = |(argument, compare, number): &(u8, SeccompCmpOp, u64)| {
        SeccompCondition::new(*argument, Dword, compare.clone(), *number)
    };
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)
}

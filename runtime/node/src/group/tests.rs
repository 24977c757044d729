#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::wire::{Answer, Member, peer, receive, send};
use super::{CONFIG, Group};
use crate::launch::{Launch, Member as InGroup};
use crate::usage::Account;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

fn launched(variables: &[(&str, &str)]) -> Launch {
    let own = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let member = InGroup { group: String::new(), account: Account::open() };
    Launch::of(1, member, variables.iter().map(own).collect())
}

#[test]
fn a_group_is_what_the_graph_says_and_not_what_the_environment_happens_to_hold() {
    let config = |env: &str, of_all: &str| {
        format!(
            "node_id: a\ndataflow_id: 0190-a\ndataflow_descriptor:\n  env: {of_all}\n  nodes:\n  - id: a\n    env: {env}\n"
        )
    };
    let asked = |env: &str, of_all: &str, variable: &[(&str, &str)]| {
        let config = config(env, of_all);
        let variables: Vec<_> = variable.iter().copied().chain([(CONFIG, config.as_str())]).collect();
        Group::asked(&launched(&variables), true).map(|group| (group.name, group.node))
    };
    let group = |name: &str| Some((name.to_owned(), "a".to_owned()));
    assert_eq!(asked("{ PROCESS: gpu }", "{}", &[]), group("gpu"));
    assert_eq!(asked("{ PROCESS: 7 }", "{}", &[("PROCESS", "7")]), group("7"));
    assert_eq!(asked("{}", "{ PROCESS: all }", &[]), group("all"));
    assert_eq!(asked("{ PROCESS: gpu }", "{ PROCESS: all }", &[]), group("gpu"), "the node's own decides");
    assert_eq!(asked("{ PROCESS: '' }", "{ PROCESS: all }", &[]), None, "the node's own decides, for no group too");
    assert_eq!(asked("{ SOURCE: PROCESS }", "{}", &[("PROCESS", "stranger")]), None);
    assert_eq!(Group::asked(&launched(&[(CONFIG, "PROCESS: [")]), true).map(|group| group.name), None);
    assert_eq!(Group::asked(&launched(&[]), true).map(|group| group.name), None);
    // a node that cannot share a process is not meant where all are; where it alone is, the group refuses it
    let of =
        |env, of_all| Group::asked(&launched(&[(CONFIG, config(env, of_all).as_str())]), false).map(|group| group.name);
    assert_eq!((of("{}", "{ PROCESS: all }"), of("{ PROCESS: gpu }", "{}").as_deref()), (None, Some("gpu")));
}

#[test]
fn a_node_is_handed_over_with_its_environment_and_its_outputs() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(peer(&ours).unwrap(), std::process::id());
    let odd = OsString::from_vec(vec![b'a', 0xff]);
    let long = OsString::from("x".repeat(1 << 20));
    let member = Member {
        node: "decode".to_owned(),
        program: "sw-nv12".to_owned(),
        host: "/somewhere/millrace-stages".into(),
        version: "1".to_owned(),
        folder: odd.clone(),
        variables: vec![("K".into(), odd.clone()), ("LONG".into(), long.clone())],
    };
    let (mut read, write) = std::io::pipe().unwrap();
    let writer = std::thread::spawn(move || {
        send(&ours, &member, &[write.as_fd(), write.as_fd()]).unwrap();
        ours
    });
    let (got, descriptors) = receive::<Member>(&theirs).unwrap().unwrap();
    let ours = writer.join().unwrap();
    assert_eq!((got.node.as_str(), &got.folder), ("decode", &odd));
    assert_eq!(got.variables, [("K".into(), odd), ("LONG".into(), long)]);
    let [out, err] = <[OwnedFd; 2]>::try_from(descriptors).unwrap();
    drop(err);
    std::fs::File::from(out).write_all(b"said").unwrap();
    let mut said = String::new();
    read.read_to_string(&mut said).unwrap();
    assert_eq!(said, "said", "to its end: nobody else has the pipe open");
    let ended = Answer::Ended { code: 3, why: Some("why".to_owned()) };
    send(&theirs, &ended, &[]).unwrap();
    drop(theirs);
    assert_eq!(receive::<Answer>(&ours).unwrap().unwrap().0, ended);
    assert!(receive::<Answer>(&ours).unwrap().is_none(), "closed");
}

#[test]
fn what_is_no_message_is_an_error() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&[0xff; 8]).unwrap();
    assert!(receive::<Answer>(&theirs).unwrap_err().to_string().contains("bytes"));
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&[9, 0]).unwrap();
    drop(ours);
    assert!(receive::<Answer>(&theirs).is_err(), "cut off");
}

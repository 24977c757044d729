#![allow(clippy::unwrap_used)]
use super::*;
use millrace_ab::soak::SoakAsked;

fn soak(graph: &str, seconds: f64) -> Soak {
    let asked = SoakAsked { seconds, availability_percent: 99.9, seen_s: 3.0, healed_s: 10.0 };
    Soak::new("today".into(), "millrace soak".into(), Default::default(), graph.into(), asked)
}

#[test]
fn a_soak_goes_on_where_it_was_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let undone = folder.path().join("undone");
    let store = Store::open(folder.path()).unwrap();
    assert!(Store::open(folder.path()).is_err_and(|error| error.to_string().contains("another soak runs in")));
    let mut begun = store.go_on(soak("a.yml", 100.0)).unwrap();
    assert_eq!((begun.measured_s, begun.breaks.len()), (0.0, 0));
    begun.measured_s = 60.0;
    begun.pending_undo = Some(format!("touch {}", undone.display()));
    store.save(&begun).unwrap();
    let more = store.go_on(soak("a.yml", 200.0)).unwrap();
    assert_eq!((more.measured_s, more.breaks.len(), more.asked.seconds), (60.0, 1, 200.0));
    assert!(more.pending_undo.is_none() && undone.exists(), "the fault that went on was undone");
    for (other, says) in [
        (soak("b.yml", 100.0), "is of a soak with other graph"),
        (Soak { sets: vec!["a.B=c".into()], ..soak("a.yml", 100.0) }, "with other settings (--set)"),
        (Soak { schedule: "faults: []".into(), ..soak("a.yml", 100.0) }, "with other faults"),
        (soak("a.yml", 60.0), "is over, after 60 s"),
    ] {
        let error = store.go_on(other).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("--out"), "{error}");
    }
    std::fs::write(folder.path().join("soak.json"), "{").unwrap();
    let error = store.go_on(soak("a.yml", 100.0)).unwrap_err().to_string();
    assert!(error.contains("not the record of a soak") && error.contains("remove the file"), "{error}");
}

#[test]
fn another_judge_is_a_file_with_problems() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("judge.json");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        problems(&file)
    };
    assert_eq!(read(r#"{"problems": ["2 mixed"], "ok": false}"#).unwrap(), ["2 mixed"]);
    assert!(read("{}").is_err() && problems(&folder.path().join("none")).is_err());
}

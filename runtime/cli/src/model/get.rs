//! `millrace model get`: where well-known models are had. None is fetched: docs/models.md says why.

use anyhow::bail;
use millrace_graph::nearest::nearest;
use std::process::ExitCode;

/// Models of one family. docs/models.md has the same table: a test compares.
struct Source {
    /// What `millrace model get` finds them by, and their names in the table.
    names: &'static [&'static str],
    /// What they find.
    finds: &'static str,
    licence: &'static str,
    /// Whose they are.
    address: &'static str,
    /// The command that brings an `.onnx` file, and its name.
    fetch: &'static str,
    file: &'static str,
    /// What `millrace model add` has to know beside the file.
    options: &'static str,
    remark: &'static str,
}

const COCO: &str = " --labels docs/labels/coco-80.txt";

const SOURCES: [Source; 6] = [
    Source {
        names: &["YOLOX-nano", "YOLOX-tiny", "YOLOX-s", "YOLOX-m", "YOLOX-l", "YOLOX-x"],
        finds: "the 80 classes of COCO: persons, vehicles, animals, things",
        licence: "Apache-2.0",
        address: "https://github.com/Megvii-BaseDetection/YOLOX/releases/tag/0.1.1rc0",
        fetch: "curl -LO https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx",
        file: "yolox_nano.onnx",
        options: COCO,
        remark: "nano is the smallest, 4 MB; s finds much more for 25 times the arithmetic",
    },
    Source {
        names: &["NanoDet-Plus-m"],
        finds: "the 80 classes of COCO",
        licence: "Apache-2.0",
        address: "https://github.com/RangiLyu/nanodet/releases/tag/v1.0.0-alpha-1",
        fetch: "curl -LO https://github.com/RangiLyu/nanodet/releases/download/v1.0.0-alpha-1/nanodet-plus-m_416.onnx",
        file: "nanodet-plus-m_416.onnx",
        options: COCO,
        remark: "as small as YOLOX-nano",
    },
    Source {
        names: &["D-FINE"],
        finds: "the 80 classes of COCO",
        licence: "Apache-2.0",
        address: "https://github.com/Peterande/D-FINE",
        fetch: "python tools/deployment/export_onnx.py -c CONFIG.yml -r CHECKPOINT.pth",
        file: "CHECKPOINT.onnx",
        options: COCO,
        remark: "in a checkout of the repository, with a checkpoint from its page and the configuration named there",
    },
    Source {
        names: &["RF-DETR"],
        finds: "the 80 classes of COCO",
        licence: "Apache-2.0",
        address: "https://github.com/roboflow/rf-detr",
        fetch: "pip install 'rfdetr[onnx]' && python -c 'import rfdetr; rfdetr.RFDETRNano().export()'",
        file: "output/rfdetr-nano.onnx",
        options: " --labels docs/labels/coco-91.txt",
        remark: "COCO's ids have gaps, which the file of labels has, too",
    },
    Source {
        names: &["ResNet", "MobileNet", "EfficientNet"],
        finds: "one of 1000 classes for the whole picture; no boxes",
        licence: "BSD-3-Clause",
        address: "https://docs.pytorch.org/vision/stable/models.html",
        fetch: "pip install torchvision onnxscript && python -c 'import torch, torchvision.models as m; w = m.ResNet18_Weights.DEFAULT; \
                open(\"classes.txt\", \"w\").write(\"\\n\".join(w.meta[\"categories\"])); \
                torch.onnx.export(m.resnet18(weights=w).eval(), torch.zeros(1, 3, 224, 224), \"resnet18.onnx\")'",
        file: "resnet18.onnx",
        options: " --labels classes.txt",
        remark: "the weights have a licence of their own where their page names one",
    },
    Source {
        names: &["YOLOv8", "YOLO11", "YOLO26"],
        finds: "boxes, masks (-seg), poses (-pose), oriented boxes (-obb), classes (-cls)",
        licence: "AGPL-3.0",
        address: "https://docs.ultralytics.com/models",
        fetch: "pip install ultralytics && yolo export model=yolo11n.pt format=onnx",
        file: "yolo11n.onnx",
        options: "",
        remark: "the file says all that is needed; read the licence before you pass on what uses it",
    },
];

impl Source {
    fn is_called(&self, name: &str) -> bool {
        let fold = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
        let wanted = fold(name);
        self.names.iter().map(|name| fold(name)).any(|name| wanted.starts_with(&name) || name.starts_with(&wanted))
    }

    fn add(&self) -> String {
        format!("millrace model add {}{} --picture street.jpg", self.file, self.options)
    }

    fn text(&self) -> String {
        let Self { names, finds, licence, address, fetch, remark, .. } = self;
        let (names, add) = (names.join(", "), self.add());
        format!(
            "{names}\n  finds    {finds}\n  licence  {licence}\n  from     {address}\n  note     {remark}\n\n    {fetch}\n    {add}\n"
        )
    }
}

const HOW: &str = "The first command gets it from its authors, and the second makes it a model of Millrace's; street.jpg is a picture \
of yours that shows what the model finds. docs/models.md says more.";

/// Where models are had: all, or those that are called `name`.
///
/// # Errors
/// None is called so; with the names that are known.
fn where_had(name: Option<&str>) -> Result<String, String> {
    let wanted = |source: &&Source| name.is_none_or(|name| source.is_called(name));
    let found: Vec<String> = SOURCES.iter().filter(wanted).map(Source::text).collect();
    let who = match name {
        None => "Millrace fetches no model, since no package with a small general detector in it was found.".to_owned(),
        Some(name) if found.is_empty() => {
            let names = || SOURCES.iter().flat_map(|source| source.names).copied();
            let near = nearest(name, names()).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "no model is known as '{name}'{near} (known: {known}); `millrace model add` describes any .onnx file that you have"
            ));
        }
        Some(name) => format!("'{name}' is had from its authors; Millrace does not fetch it."),
    };
    Ok(format!("{who} {HOW}\n\n{}", found.join("\n")))
}

/// Says where models are had. That a model is not fetched is no failure: to say where is all that is asked for.
pub(super) fn get(names: &[String]) -> anyhow::Result<ExitCode> {
    let name = match names {
        [] => None,
        [name] if ["-h", "--help"].contains(&name.as_str()) => None,
        [name] if name.starts_with('-') => {
            bail!("'millrace model get' has no option {name}; give a name, or nothing")
        }
        [name] => Some(name.trim()).filter(|name| !name.is_empty()),
        _ => bail!("'millrace model get' answers for one name, and there are {}: {}", names.len(), names.join(", ")),
    };
    let text = where_had(name).map_err(anyhow::Error::msg)?;
    // a reader that closes the pipe early has what it wanted
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    #[test]
    fn a_name_is_found_as_people_write_it() {
        let found =
            |name: &str| SOURCES.iter().filter(|source| source.is_called(name)).map(|s| s.names[0]).collect::<Vec<_>>();
        for (name, first) in [
            ("yolox", "YOLOX-nano"),
            ("YOLOX_Tiny", "YOLOX-nano"),
            ("nanodet", "NanoDet-Plus-m"),
            ("dfine", "D-FINE"),
            ("rfdetr-nano", "RF-DETR"),
            ("resnet18", "ResNet"),
            ("yolo11n-seg", "YOLOv8"),
        ] {
            assert_eq!(found(name), [first], "{name}");
        }
        assert!(found("frigate").is_empty());
    }

    #[test]
    fn a_name_is_answered_by_where_it_is_had_or_by_the_names_that_are_known() {
        let had = where_had(Some("yolox-s")).unwrap();
        assert!(had.starts_with("'yolox-s' is had from its authors; Millrace does not fetch it."), "{had}");
        assert!(had.contains("releases/tag/0.1.1rc0") && had.contains("model add yolox_nano.onnx"), "{had}");
        assert!(!had.contains("rf-detr"), "{had}");
        let all = where_had(None).unwrap();
        assert!(SOURCES.iter().all(|source| all.contains(source.address)), "{all}");
        let unknown = where_had(Some("frigate")).unwrap_err();
        assert!(unknown.starts_with("no model is known as 'frigate' (known: YOLOX-nano, "), "{unknown}");
        assert!(unknown.contains("YOLO26") && unknown.contains("`millrace model add`"), "{unknown}");
        assert!(where_had(Some("YOLOZ-nano")).unwrap_err().contains("did you mean 'YOLOX-nano'?"));
        assert!(get(&["yolox".to_owned()]).is_ok() && get(&[]).is_ok() && get(&["--help".to_owned()]).is_ok());
        for refused in [&["frigate"][..], &["--all"], &["yolox", "rf-detr"]] {
            assert!(get(&refused.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn the_page_has_the_same_table() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let page = std::fs::read_to_string(root.join("docs/models.md")).unwrap();
        let (begin, end) = ("<!-- models: written by runtime/cli/src/model/get.rs -->\n", "<!-- end of models -->\n");
        let (before, rest) = page.split_once(begin).expect("the mark before the table");
        let (found, after) = rest.split_once(end).expect("the mark behind the table");
        let row = |source: &Source| {
            let Source { names, finds, licence, address, fetch, remark, .. } = source;
            let (names, add) = (names.join(", "), source.add());
            format!(
                "| {names} | {finds} | {licence} | [the authors' page]({address}) | `{fetch}`<br>`{add}` | {remark} |\n"
            )
        };
        let rows: String = SOURCES.iter().map(row).collect();
        let want =
            format!("\n| models | find | licence | from | commands | note |\n|---|---|---|---|---|---|\n{rows}\n");
        if std::env::var_os("MILLRACE_WRITE_DOCS").is_some() {
            std::fs::write(root.join("docs/models.md"), format!("{before}{begin}{want}{end}{after}")).unwrap();
        } else {
            assert_eq!(found, want, "run `MILLRACE_WRITE_DOCS=1 cargo test --release -p millrace model`");
        }
        for source in &SOURCES {
            let labels = source.options.strip_prefix(" --labels docs/");
            assert!(labels.is_none_or(|file| root.join("docs").join(file).is_file()), "{}", source.options);
        }
    }
}

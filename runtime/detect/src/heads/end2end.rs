//! `end2end`: the boxes that the network has chosen, one class each.

use super::kind::Keys;
use super::numbers::four;
use super::{Axis, Canvas, Expected, Guess, Head, HeadError, Key, Kind, RawTensor, Recipe, Sink, grid};
use crate::signature::Port;
use millrace_frame::Size;
use std::sync::Arc;

pub(super) const KIND: Kind = Kind {
    name: "end2end",
    serves: "YOLOv10, YOLO26, and any YOLO exported with suppression inside",
    outputs: "`[1, N, 6]`",
    numbers: "left, top, right, bottom in model pixels, score, number of the class. No suppression",
    keys: &[Key::OUTPUT, Key::EXTRA],
    read,
    guess,
};

/// More boxes than this are no list that a network has chosen.
const MOST: usize = 1000;

#[derive(Debug)]
struct End2end {
    output: String,
    extra: usize,
}

fn read(keys: &mut Keys<'_, '_>) -> Option<Arc<dyn Head>> {
    let (output, extra) = (keys.name("output"), keys.extra());
    Some(Arc::new(End2end { output: output?, extra: extra? }))
}

fn guess(outputs: &[Port], _: Size) -> Option<Guess> {
    let output = outputs.first()?;
    let [_, boxes, numbers] = output.extents::<3>()?;
    let masks = match &outputs[1..] {
        [] => 0,
        [prototypes] => prototypes.extents::<4>()?[1],
        _ => return None,
    };
    (boxes <= MOST && numbers == 6 + masks).then(|| {
        let extra = if masks > 0 { format!(", extra: {masks}") } else { String::new() };
        Guess {
            head: format!("{{kind: end2end, output: {}{extra}}}", output.name),
            classes: None,
            recipe: Recipe::ULTRALYTICS,
        }
    })
}

impl Head for End2end {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn expected(&self, _: &Canvas) -> Vec<Expected> {
        let extra = if self.extra > 0 { format!(", extra {}", self.extra) } else { String::new() };
        let why = format!("boxes, then four edges, score, class{extra}");
        vec![grid::rows(Axis::Open, 6 + self.extra, why)]
    }

    fn read(&self, outputs: &[RawTensor<'_>], _: &Canvas, sink: &mut Sink<'_>) -> Result<(), HeadError> {
        for (i, row) in outputs[0].data.chunks_exact(6 + self.extra).enumerate() {
            if sink.wants_of_list(row[4]) {
                let class = sink.class(row[5])?;
                sink.push(i, class, row[4], four(row, 0));
            }
        }
        Ok(())
    }

    fn suppresses(&self) -> bool {
        false
    }
}

//! Outputs that come from a GPU without the candidates that cannot become boxes give the boxes of the whole. The driver is the
//! stand-in, or a GPU's where one is asked for.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod common;

#[test]
fn on_the_stand_in() {
    millrace_cuda_driver_folder::run_on_the_stand_in("on_a_gpu::", &[]);
}

#[test]
fn on_a_slow_stand_in() {
    millrace_cuda_driver_folder::run_on_the_stand_in("on_a_gpu::a_crowd", &[("MILLRACE_FAKE_CUDA_DELAY_US", "2000")]);
}

mod on_a_gpu {
    use crate::common::{CASES, Case, Compared, Fill, YOLOV8, YOLOX, boxes, compared, on_gpu, typed};
    use millrace_cuda::{Gpu, Stream};
    use millrace_cuda_driver_folder::on_trial;
    use millrace_detect::{Decoder, Grid, RawTensor};
    use millrace_frame::TensorDtype;
    use millrace_infer::Outlet;

    fn gpu() -> Option<Gpu> {
        on_trial().then(|| Gpu::open(0).unwrap_or_else(|e| panic!("a GPU was asked for: {e}")))
    }

    fn outlet(gpu: &Gpu, case: &Case, frames: usize, dtype: TensorDtype, grid: Option<Grid>) -> Outlet {
        Outlet::new(gpu, "a", case.shape.to_vec(), frames, dtype, grid).unwrap()
    }

    #[test]
    fn the_boxes_are_those_of_the_whole_output() {
        let Some(gpu) = gpu() else { return };
        let Compared { few, whole, wrong } = compared(&gpu);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(few > 300 && whole > 100, "both ways were tried: {few}, {whole}");
    }

    /// What a head refuses of the whole it refuses of the rest, in the same words.
    #[test]
    fn what_no_head_accepts_is_refused_alike() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        for case in CASES {
            let folder = tempfile::tempdir().unwrap();
            let model = case.model(folder.path());
            let (grid, second) = (Decoder::new(&model).grid().unwrap(), case.second());
            let mut outlet = outlet(&gpu, &case, 1, TensorDtype::F32, Some(grid));
            let mut outputs = vec![case.output(Fill { seed: 7, density: 0.001, odd: 0.0 }); 4];
            let (count, numbers) = case.extents();
            let deciding =
                |n: usize| if case.is_rows() { n * numbers + case.scores[0] } else { case.scores[0] * count + n };
            outputs[0][deciding(3)] = 7.5;
            outputs[1][deciding(5)] = -3.0;
            // every number from 0 to 1: what a model with a sigmoid gives, and no logits
            outputs[2].iter_mut().for_each(|v| *v = v.abs().fract());
            outputs[3].fill(-2.0);
            for (n, data) in outputs.iter().enumerate() {
                let (_memory, span) = on_gpu(&gpu, &stream, &typed(data, TensorDtype::F32).0);
                outlet.queue(&stream, span, 1, 0.6).unwrap();
                outlet.arrive(&stream).unwrap();
                let of = |tensor| boxes(&model, 0.6, tensor, second.as_ref());
                let (ours, theirs) = (of(outlet.tensor(0)), of(RawTensor::whole("a", &case.shape, data)));
                assert!(ours == theirs, "{} {n}:\n{ours}\n{theirs}", case.name);
                if case.name == YOLOX.name && n == 0 || case.name.ends_with("logits") && n == 2 {
                    assert!(theirs.starts_with("Err"), "{} {n}: {theirs}", case.name);
                }
            }
        }
    }

    /// A frame with more candidates than there is room for comes whole, the others of its batch do not; so do the next 32
    /// batches, and then it is tried again.
    #[test]
    fn a_crowd_comes_whole() {
        let Some(gpu) = gpu() else { return };
        let (stream, late) = (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let grid = Decoder::new(&YOLOX.model(folder.path())).grid();
        let mut outlet = outlet(&gpu, &YOLOX, 3, TensorDtype::F32, grid);
        let frames: Vec<Vec<f32>> =
            [0.01, 0.9, 0.02].map(|density| YOLOX.output(Fill { seed: 3, density, odd: 0.0 })).into_iter().collect();
        let bytes: Vec<u8> = frames.iter().flatten().flat_map(|v| v.to_ne_bytes()).collect();
        let (_memory, span) = on_gpu(&gpu, &stream, &bytes);
        let sparse = span.part(0, (4 * YOLOX.elements()) as u64);
        outlet.queue(&stream, span, 3, 0.3).unwrap();
        outlet.arrive(&late).unwrap();
        assert_eq!([0, 1, 2].map(|n| outlet.tensor(n).kept.is_some()), [true, false, true]);
        assert!(outlet.tensor(1).data == frames[1]);
        for n in 0..33 {
            outlet.queue(&stream, sparse, 1, 0.3).unwrap();
            outlet.arrive(&late).unwrap();
            assert_eq!(outlet.tensor(0).kept.is_some(), n == 32, "batch {n}");
        }
        // one that was given up before it arrived
        outlet.queue(&stream, span, 3, 0.3).unwrap();
        outlet.queue(&stream, sparse, 1, 0.3).unwrap();
        outlet.arrive(&late).unwrap();
        assert!(outlet.tensor(0).kept.is_some());
        outlet.queue(&stream, span, 3, 0.3).unwrap();
        // waits for the last one, and the memory goes after it
        drop(outlet);
    }

    /// Small outputs, outputs of other heads and boxes of any score are not looked at on the GPU.
    #[test]
    fn what_would_not_pay_comes_whole() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let grid = Decoder::new(&YOLOV8.model(folder.path())).grid();
        for (shape, grid, score) in
            [([1, 84, 500], grid.clone(), 0.3), (YOLOV8.shape, None, 0.3), (YOLOV8.shape, grid, 0.0)]
        {
            let mut outlet = Outlet::new(&gpu, "a", shape.to_vec(), 1, TensorDtype::F32, grid).unwrap();
            let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|n| n as f32).collect();
            let (_memory, span) = on_gpu(&gpu, &stream, &typed(&data, TensorDtype::F32).0);
            outlet.queue(&stream, span, 1, score).unwrap();
            outlet.arrive(&stream).unwrap();
            assert!(outlet.tensor(0).kept.is_none() && outlet.tensor(0).data == data);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let Some(gpu) = gpu() else { return };
        let stream = Stream::new(&gpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let grid = Decoder::new(&YOLOX.model(folder.path())).grid();
        let of_bytes = Outlet::new(&gpu, "a", YOLOX.shape.to_vec(), 1, TensorDtype::U8, grid.clone());
        assert!(of_bytes.unwrap_err().to_string().contains("its elements are u8; f32 or f16 are expected"));
        let mut outlet = outlet(&gpu, &YOLOX, 2, TensorDtype::F32, grid);
        let (_memory, span) = on_gpu(&gpu, &stream, &vec![0; 8 * YOLOX.elements() - 1]);
        for (frames, said) in [(3, "3 of 2 frames"), (2, "2 of 2 frames")] {
            let text = outlet.queue(&stream, span, frames, 0.3).unwrap_err().to_string();
            assert!(text.contains(said), "{text}");
        }
    }
}

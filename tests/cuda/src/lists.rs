//! Lists of ids to test with.

use crate::{Gpu, Window};
use manygate_cuda::sequence::Lists;
use manygate_cuda::{DeviceMat, Element, Launch};
use proptest::prelude::*;
use std::ops::Range;

/// Samples with lists of few ids, some of none, and matrices with a row a sample or a row an id.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Samples that are there, and most of them.
    pub samples: [usize; 2],
    /// The first id of each sample that is there, and the one behind the last.
    pub offsets: Vec<u32>,
    /// Ids that could be there and are not.
    pub missing: usize,
    /// Columns before and behind matrices.
    pub around: [usize; 2],
    /// What matrices hold.
    pub element: Element,
    /// Of values.
    pub seed: u64,
}

impl Sampled {
    /// Any few.
    pub fn any() -> impl Strategy<Value = Sampled> {
        let lists = prop::collection::vec(prop_oneof![2 => 0usize..6, 1 => Just(0), 1 => 30usize..36], 0..14);
        let few = || prop_oneof![Just(0usize), Just(8), 0usize..5];
        (lists, 0usize..3, 0usize..5, [few(), few()], any::<bool>(), any::<u64>()).prop_map(
            |(lists, more, missing, around, is_bf16, seed)| {
                let mut offsets = vec![0];
                lists.iter().for_each(|ids| offsets.push(offsets[offsets.len() - 1] + *ids as u32));
                let element = if is_bf16 { Element::Bf16 } else { Element::F32 };
                let samples = [lists.len(), lists.len() + more];
                Sampled { samples, offsets, missing, around, element, seed }
            },
        )
    }

    /// Ids of all samples.
    pub fn count(&self) -> usize {
        self.offsets[self.samples[0]] as usize
    }

    /// The ids of a sample.
    pub fn ids(&self, sample: usize) -> Range<usize> {
        self.offsets[sample] as usize..self.offsets[sample + 1] as usize
    }

    /// A matrix with a row a sample.
    pub fn of_samples(&self, cols: usize) -> Window {
        let ([live, rows], [before, behind]) = (self.samples, self.around);
        Window { rows, live, cols, before, behind, element: self.element }
    }

    /// A matrix with a row an id.
    pub fn of_ids(&self, cols: usize) -> Window {
        let ([behind, before], live) = (self.around, self.count());
        Window { rows: live + self.missing, live, cols, before, behind, element: self.element }
    }

    /// The lists in device memory.
    pub fn upload(&self, gpu: &mut Gpu) -> Lists {
        let [live, most] = self.samples;
        let offsets = gpu.upload(&self.offsets);
        Lists { offsets, samples: gpu.upload(&[live as u32]), most: most as u32 }
    }

    /// That launches from `inputs` to `to` leave what `expected` makes of the inputs' values and of what is there, 0 unless
    /// they `accumulate`.
    ///
    /// # Errors
    /// With the first value that is wrong.
    pub fn check(
        &self,
        inputs: &[Window],
        to: Window,
        accumulate: bool,
        launches: impl Fn(&mut Gpu, Lists, &[DeviceMat], DeviceMat) -> Vec<Launch>,
        expected: impl Fn(&[Vec<f32>], &mut [f32]),
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().enumerate().map(|(i, window)| window.values(self.seed ^ i as u64, 1.0)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let live: Vec<Vec<f32>> =
            inputs.iter().zip(&all).map(|(window, all)| window.live_values(all)).collect();
        let mut wanted = to.live_values(&before);
        if !accumulate {
            wanted.fill(0.0);
        }
        expected(&live, &mut wanted);
        let from: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(window, all)| window.upload(&mut gpu, all)).collect();
        let (lists, at) = (self.upload(&mut gpu), to.upload(&mut gpu, &before));
        for launch in launches(&mut gpu, lists, &from, at) {
            gpu.launch(&launch);
        }
        let found = to.download(&mut gpu, at);
        let scale: Vec<f32> = wanted.iter().map(|v| 4.0 + v.abs()).collect();
        prop_assert_eq!(to.difference(&before, &found, &wanted, &scale, 2e-6), None);
        Ok(())
    }
}

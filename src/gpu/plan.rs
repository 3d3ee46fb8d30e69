//! A pass as data: which pipeline with which buffers, and how many workgroups as a rule over the batch. Made once at load, it is
//! recorded for each batch without a look-up or an allocation.

use std::sync::Arc;

use super::{Cost, Gpu, Pipeline};
use crate::batch::Header;
use crate::error::Result;

/// What a number of workgroups, or of rows of a result, grows with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Fixed(u32),
    Tokens,
    Texts,
    /// Tiles of queries, see [`crate::batch`].
    Tiles,
    /// Tokens that a head has asked for, see [`crate::Sequence::selected`].
    Selected,
}

impl Count {
    /// The number in this batch.
    pub fn of(self, batch: &Header) -> u32 {
        match self {
            Count::Fixed(count) => count,
            Count::Tokens => batch.tokens,
            Count::Texts => batch.texts,
            Count::Tiles => batch.tiles,
            Count::Selected => batch.selected,
        }
    }
}

/// Workgroups along x and y: one for every `per` of the count.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub x: Count,
    pub y: Count,
    /// How many rows one workgroup takes along y.
    pub rows: u32,
}

impl Grid {
    /// One workgroup for each of `x`.
    pub fn each(x: Count) -> Self {
        Self { x, y: Count::Fixed(1), rows: 1 }
    }

    fn workgroups(self, batch: &Header) -> (u32, u32) {
        (self.x.of(batch), self.y.of(batch).div_ceil(self.rows))
    }
}

/// A pipeline that does a step, and how many workgroups of it.
#[derive(Clone, Debug)]
pub struct Form {
    /// Most rows of a batch for which it is taken.
    pub up_to: u32,
    pub pipeline: Arc<Pipeline>,
    pub grid: Grid,
}

/// One dispatch.
#[derive(Debug)]
pub struct Step {
    rows: Count,
    /// At least one, for ever more rows; the last takes whatever the others do not. They read and write the same, and results have the
    /// same bits.
    forms: Vec<Form>,
    bind_group: wgpu::BindGroup,
    pub cost: Cost,
}

impl Step {
    /// Binds `buffers` by name; which of `forms` runs depends on the number of `rows`.
    ///
    /// # Errors
    /// As [`Pipeline::bind`].
    pub fn new(gpu: &Gpu, rows: Count, forms: Vec<Form>, buffers: &[(&str, &wgpu::Buffer)], cost: Cost) -> Result<Self> {
        let bind_group = forms[0].pipeline.bind(gpu, buffers)?;
        Ok(Self { rows, forms, bind_group, cost })
    }

    /// As [`Step::new`], with one form for any number of rows.
    ///
    /// # Errors
    /// As [`Pipeline::bind`].
    pub fn single(gpu: &Gpu, pipeline: Arc<Pipeline>, grid: Grid, buffers: &[(&str, &wgpu::Buffer)], cost: Cost) -> Result<Self> {
        Self::new(gpu, Count::Fixed(0), vec![Form { up_to: u32::MAX, pipeline, grid }], buffers, cost)
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        self.forms[0].pipeline.kernel
    }

    fn record(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Header) {
        let rows = self.rows.of(batch);
        let Form { pipeline, grid, .. } = self.forms.iter().find(|form| rows <= form.up_to).unwrap_or(&self.forms[self.forms.len() - 1]);
        let (x, y) = grid.workgroups(batch);
        if x == 0 || y == 0 {
            return; // no text of this batch has anything to select
        }
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }
}

/// The dispatches of a pass, in order.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    /// Records every step for a batch of this size.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, batch: &Header) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("minilm"), timestamp_writes: None });
        for step in &self.steps {
            step.record(&mut pass, batch);
        }
    }

    /// Records every step in a pass of its own that writes the queries `2 * i` and `2 * i + 1` at its begin and end, as far as the set goes.
    pub fn record_timed(&self, encoder: &mut wgpu::CommandEncoder, batch: &Header, queries: &wgpu::QuerySet) {
        for (i, step) in (0..).zip(&self.steps) {
            let timestamp_writes = (2 * i + 1 < queries.count()).then_some(wgpu::ComputePassTimestampWrites {
                query_set: queries,
                beginning_of_pass_write_index: Some(2 * i),
                end_of_pass_write_index: Some(2 * i + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: Some(step.kernel()), timestamp_writes };
            step.record(&mut encoder.begin_compute_pass(&descriptor), batch);
        }
    }

    /// The kernels' names in order.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(Step::kernel)
    }
}

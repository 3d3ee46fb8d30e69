//! A pass as data: which pipeline with which buffers, and how many workgroups as a rule over the batch. Made once at load, it is
//! recorded for each batch without a look-up or an allocation.

use std::sync::Arc;

use super::check::{Check, CheckOf};
use super::{Amount, Cost, Gpu, Pipeline, Slice};
use crate::batch::Header;
use crate::error::Result;
use crate::parallel;

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

/// A pipeline that can do a step, and how many workgroups of it.
#[derive(Clone, Debug)]
pub struct Form {
    /// Which variant it is, for messages; empty where there is only one.
    pub variant: String,
    pub pipeline: Arc<Pipeline>,
    pub grid: Grid,
}

/// One dispatch, as a kernel describes it.
pub struct Step {
    /// What [`Step::forms`] are chosen by.
    rows: Count,
    /// For up to so many rows each, ascending; the last takes whatever the others do not. They read and write the same, and results
    /// have the same bits.
    forms: Vec<(u32, Form)>,
    /// What takes the place of a form that this adapter cannot do.
    fallback: Option<Form>,
    bind_group: wgpu::BindGroup,
    cost: Cost,
    check: Option<Arc<CheckOf>>,
}

impl Step {
    /// Binds `buffers` by name; which of `forms` runs depends on the number of `rows`.
    ///
    /// # Errors
    /// As [`Pipeline::bind`].
    pub fn new(gpu: &Gpu, rows: Count, forms: Vec<(u32, Form)>, buffers: &[(&str, &Slice)], cost: Cost) -> Result<Self> {
        let bind_group = forms[0].1.pipeline.bind(gpu, buffers)?;
        Ok(Self { rows, forms, fallback: None, bind_group, cost, check: None })
    }

    /// As [`Step::new`], with one form for any number of rows.
    ///
    /// # Errors
    /// As [`Pipeline::bind`].
    pub fn single(gpu: &Gpu, pipeline: Arc<Pipeline>, grid: Grid, buffers: &[(&str, &Slice)], cost: Cost) -> Result<Self> {
        Self::new(gpu, Count::Fixed(0), vec![(u32::MAX, Form { variant: String::new(), pipeline, grid })], buffers, cost)
    }

    /// With a check that every form must meet, made for the form's grid.
    pub fn checked_by(self, check: impl Fn(Grid) -> Check + Send + Sync + 'static) -> Self {
        Self { check: Some(Arc::new(check)), ..self }
    }

    /// With a form that takes the place of one that does not compile or does not meet the check.
    pub fn or(self, fallback: Form) -> Self {
        Self { fallback: Some(fallback), ..self }
    }

    fn vetted(&self, gpu: &Gpu, form: &Form) -> Result<wgpu::ComputePipeline> {
        form.pipeline.vetted(gpu, form.grid, self.check.as_deref())
    }

    /// Compiles and checks every form, and makes those that fail give way.
    fn dispatch(self, gpu: &Gpu) -> Result<Dispatch> {
        let mut forms = Vec::with_capacity(self.forms.len());
        for (up_to, form) in &self.forms {
            let (pipeline, grid) = match (self.vetted(gpu, form), &self.fallback) {
                (Ok(pipeline), _) => (pipeline, form.grid),
                (Err(error), Some(fallback)) => {
                    gpu.reject(form.pipeline.kernel, &form.variant, &error);
                    (self.vetted(gpu, fallback)?, fallback.grid)
                }
                (Err(error), None) => return Err(error),
            };
            forms.push((*up_to, pipeline, grid));
        }
        let Self { rows, bind_group, cost, .. } = self;
        Ok(Dispatch { kernel: self.forms[0].1.pipeline.kernel, rows, forms, bind_group, cost })
    }
}

/// One dispatch, ready to be recorded.
#[derive(Debug)]
pub struct Dispatch {
    kernel: &'static str,
    rows: Count,
    forms: Vec<(u32, wgpu::ComputePipeline, Grid)>,
    bind_group: wgpu::BindGroup,
    pub cost: Cost,
}

impl Dispatch {
    /// In one form, whose cost nobody asks for.
    pub(super) fn one(kernel: &'static str, pipeline: wgpu::ComputePipeline, grid: Grid, bind_group: wgpu::BindGroup) -> Self {
        Self {
            kernel,
            rows: Count::Fixed(0),
            forms: vec![(u32::MAX, pipeline, grid)],
            bind_group,
            cost: Cost { rows: Count::Fixed(0), operations: Amount::default(), bytes: Amount::default() },
        }
    }

    pub fn record(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Header) {
        let rows = self.rows.of(batch);
        let (_, pipeline, grid) = self.forms.iter().find(|(up_to, ..)| rows <= *up_to).unwrap_or(&self.forms[self.forms.len() - 1]);
        let (x, y) = grid.workgroups(batch);
        if x == 0 || y == 0 {
            return; // no text of this batch has anything to select
        }
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, 1);
    }
}

/// The dispatches of a pass, in order.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Dispatch>,
}

impl Plan {
    /// Compiles and checks all kernels of the steps, on as many threads as there are processors.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when this adapter can run a step in no form.
    pub fn new(gpu: &Gpu, steps: Vec<Step>) -> Result<Self> {
        prepare(gpu, &steps);
        Ok(Self { steps: steps.into_iter().map(|step| step.dispatch(gpu)).collect::<Result<_>>()? })
    }

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
            let descriptor = wgpu::ComputePassDescriptor { label: Some(step.kernel), timestamp_writes };
            step.record(&mut encoder.begin_compute_pass(&descriptor), batch);
        }
    }

    /// The kernels' names in order.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(|step| step.kernel)
    }
}

/// Compiles and checks the forms of all steps, each once, while the caller does something else or waits. Failures come again, from
/// [`Plan::new`].
pub(crate) fn prepare(gpu: &Gpu, steps: &[Step]) {
    let mut todo: Vec<(&Step, &Form)> = Vec::new();
    for (step, (_, form)) in steps.iter().flat_map(|step| step.forms.iter().map(move |form| (step, form))) {
        if !todo.iter().any(|(_, other)| Arc::ptr_eq(&other.pipeline, &form.pipeline)) {
            todo.push((step, form));
        }
    }
    parallel::map(&todo, parallel::cores(), |(step, form)| _ = step.vetted(gpu, form));
}

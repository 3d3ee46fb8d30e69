//! A report as a table.

use std::fmt;

use super::report::{ColdStart, ModelReport, Ratio, Report};
use crate::kernels::Operands;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, date, adapter, operands, peaks, models } = self;
        let kind = if adapter.software { ", software" } else { "" };
        writeln!(f, "minilm {version}, {date} UTC")?;
        writeln!(f, "{} ({}{kind}), driver {}", adapter.name, adapter.backend, adapter.driver)?;
        let (bandwidth, operations) = (peaks.bytes_per_second / 1e9, peaks.operations_per_second / 1e9);
        writeln!(f, "measured limits: {bandwidth:.1} GB/s through memory, {operations:.0} GFLOP/s in registers")?;
        if *operands != Operands::default() {
            writeln!(f, "matrix products with {operands}; the limit is that of f32")?;
        }
        for model in models {
            write!(f, "\n{model}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ColdStart { file, upload, pipelines, checks, first_batch } = self.cold_start;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        writeln!(f, "{}: {} layers, hidden {}, intermediate {}", self.name, self.layers, self.hidden, self.intermediate)?;
        let (weights, activations) = (megabytes(self.weight_bytes), megabytes(self.activation_bytes));
        writeln!(
            f,
            "  memory      {weights:.0} MB of weights, {activations:.0} MB of activations; {} dispatches a batch",
            self.dispatches
        )?;
        let all = [file, upload, pipelines, checks, first_batch].map(|seconds| seconds * 1e3);
        writeln!(
            f,
            "  cold start  file {:.0} ms, upload {:.0} ms, pipelines {:.0} ms, checks of kernels {:.0} ms, first batch {:.0} ms",
            all[0], all[1], all[2], all[3], all[4]
        )?;
        if !self.workloads.is_empty() {
            self.fmt_workloads(f)?;
        }
        if !self.products.is_empty() {
            writeln!(f, "  W5, matmul alone                        ms   GFLOP/s      GB/s   of the limit   form")?;
        }
        for p in &self.products {
            writeln!(
                f,
                "  {:<8} {:<24} {:>7.3} {:>9.1} {:>9.1} {:>13.0}%   {}",
                p.name,
                format!("[{} x {}] x [{} x {}]", p.rows, p.inner, p.inner, p.outer),
                p.seconds * 1e3,
                p.operations / p.seconds / 1e9,
                p.bytes / p.seconds / 1e9,
                p.share_of_peak * 100.0,
                p.variant
            )?;
        }
        if !self.kernels.is_empty() {
            writeln!(f, "  kernel (first batch)        dispatches         ms   GFLOP/s      GB/s   of the limit")?;
        }
        for k in &self.kernels {
            writeln!(
                f,
                "  {:<2} {:<24} {:>10} {:>10.3} {:>9.1} {:>9.1} {:>13.0}%",
                k.workload,
                k.kernel,
                k.dispatches,
                k.seconds * 1e3,
                k.operations / k.seconds / 1e9,
                k.bytes / k.seconds / 1e9,
                k.share_of_peak * 100.0
            )?;
        }
        Ok(())
    }
}

impl ModelReport {
    fn fmt_workloads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  workload                             median ms     texts/s    tokens/s   GFLOP/s")?;
        for w in &self.workloads {
            writeln!(
                f,
                "  {:<4} {:<31} {:>9.2} {:>11.1} {:>11.0} {:>9.1}",
                w.name,
                w.what,
                w.seconds * 1e3,
                w.texts_per_second,
                w.tokens_per_second,
                w.operations_per_second / 1e9
            )?;
        }
        for Ratio { what, ratio } in &self.ratios {
            writeln!(f, "  {ratio:.2} {what}")?;
        }
        writeln!(f, "  host, us a batch  tokenize, one core  all cores     pack   record   submit  barriers  KB up  KB down  batches")?;
        for w in &self.workloads {
            let each = |amount: f64| amount / w.batches.max(1) as f64;
            writeln!(
                f,
                "  {:<16} {:>19.0} {:>10.0} {:>8.1} {:>8.1} {:>8.1} {:>9.0} {:>6.1} {:>8.1} {:>8}",
                w.name,
                each(w.tokenize_seconds * 1e6),
                each(w.tokenize_all_cores_seconds * 1e6),
                each(w.pack_seconds * 1e6),
                each(w.record_seconds * 1e6),
                each(w.submit_seconds * 1e6),
                each(w.barriers as f64),
                each(w.bytes_uploaded as f64 / 1e3),
                each(w.bytes_read as f64 / 1e3),
                w.batches
            )?;
        }
        Ok(())
    }
}

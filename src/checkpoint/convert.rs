//! Little-endian bytes to f32, in loops that compilers turn into vector instructions.
//!
//! Nothing here needs alignment. Each function fills `out` completely and returns whether
//! all of it is finite.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

/// Numbers per step: small enough for the first-level cache, large enough to pay for a call.
const CHUNK: usize = 2048;

pub(super) fn f32s(bytes: &[u8], out: &mut [f32]) -> bool {
    in_chunks::<4>(bytes, out, |bytes, out| {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    })
}

pub(super) fn f16s(bytes: &[u8], out: &mut [f32]) -> bool {
    let mut bits = [0; CHUNK];
    in_chunks::<2>(bytes, out, |bytes, out| {
        let bits = &mut bits[..out.len()];
        for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *bits = u16::from_le_bytes(*bytes);
        }
        // Uses the processor's conversion where there is one.
        bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(out);
    })
}

pub(super) fn bf16s(bytes: &[u8], out: &mut [f32]) -> bool {
    in_chunks::<2>(bytes, out, |bytes, out| {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            // bfloat16 is the upper half of an f32.
            *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    })
}

/// `out` `[rows, columns]` from bytes `[rows, columns]` and a scale for each row.
pub(super) fn scaled_i8s(bytes: &[u8], scales: &[u8], columns: usize, out: &mut [f32]) -> bool {
    let mut finite = true;
    let rows = out.chunks_exact_mut(columns.max(1)).zip(bytes.chunks_exact(columns.max(1)));
    for ((out, bytes), scale) in rows.zip(scales.as_chunks::<4>().0) {
        let scale = f32::from_le_bytes(*scale);
        for (value, byte) in out.iter_mut().zip(bytes) {
            *value = f32::from(*byte as i8) * scale;
        }
        if scale.is_nan() || scale.abs() > f32::MAX / 128.0 {
            out.fill(f32::NAN);
            finite = false;
        }
    }
    finite
}

fn in_chunks<const SIZE: usize>(bytes: &[u8], out: &mut [f32], mut convert: impl FnMut(&[u8], &mut [f32])) -> bool {
    let mut finite = true;
    for (bytes, out) in bytes.chunks(CHUNK * SIZE).zip(out.chunks_mut(CHUNK)) {
        convert(bytes, out);
        finite &= all_finite(out);
    }
    finite
}

/// Counting instead of stopping at the first keeps the loop free of branches.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().map(|value| u32::from(value.to_bits() & EXPONENT == EXPONENT)).sum::<u32>() == 0
}

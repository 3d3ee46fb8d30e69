// Activations, chosen when the pipeline is made.

override ACTIVATION: u32 = 0u;

// The error function as x * P(x^2) / Q(x^2), a rational minimax approximation for |x| <= 4 (beyond, erf is 1 in f32).
// Its absolute error is below 5e-7 (measured over [-6, 6]; the unit test of `reference::erf_rational` holds it).
fn erf(x: vec4f) -> vec4f {
    let t = clamp(x, vec4f(-4.0), vec4f(4.0));
    let s = t * t;
    var p = fma(s, vec4f(-2.72614225801306e-10), vec4f(2.77068142495902e-08));
    p = fma(s, p, vec4f(-2.10102402082508e-06));
    p = fma(s, p, vec4f(-5.69250639462346e-05));
    p = fma(s, p, vec4f(-7.34990630326855e-04));
    p = fma(s, p, vec4f(-2.95459980854025e-03));
    p = fma(s, p, vec4f(-1.60960333262415e-02));
    var q = fma(s, vec4f(-1.45660718464996e-05), vec4f(-2.13374055278905e-04));
    q = fma(s, q, vec4f(-1.68282697438203e-03));
    q = fma(s, q, vec4f(-7.37332916720468e-03));
    q = fma(s, q, vec4f(-1.42647390514189e-02));
    return t * p / q;
}

// tanh, kept away from arguments whose exponential overflows: some drivers return NaN there. tanh(10) is 1 in f32.
fn bounded_tanh(x: vec4f) -> vec4f {
    return tanh(clamp(x, vec4f(-10.0), vec4f(10.0)));
}

// The numbers are those of `kernels::activation_code`.
fn activate(x: vec4f) -> vec4f {
    switch ACTIVATION {
        case 1u: { return 0.5 * x * (1.0 + erf(x * 0.70710678118654752)); }                                 // GELU, exact
        case 2u: { return 0.5 * x * (1.0 + bounded_tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))); } // GELU, tanh form
        case 3u: { return max(x, vec4f()); }                                                                 // ReLU
        case 4u: { return bounded_tanh(x); }
        default: { return x; }
    }
}

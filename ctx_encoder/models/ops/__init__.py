"""Array operations with rewrites for XLA's CPU backend.

conv: convolution and transposed convolution, chosen by platform while lowering.
cpu_conv: the rewrites that `conv` uses on CPUs.
winograd: stride-1 convolutions with fewer multiplications.
pool: max pooling.
platform: one differentiable function from a CPU version and a stock version.
"""

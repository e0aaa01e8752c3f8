// Cooperative matrices under one set of names, in whichever dialect the compiler knows: KHR, or NV,
// whose modules tools/coopmat turns into the other. A, B and SUM tiles are distinct types: their
// sizes are different constants.
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#ifdef GL_KHR_cooperative_matrix
#extension GL_KHR_cooperative_matrix : require
#define MATRIX_A coopmat<float16_t, gl_ScopeSubgroup, FRAGMENT_M, FRAGMENT_K, gl_MatrixUseA>
#define MATRIX_B coopmat<float16_t, gl_ScopeSubgroup, FRAGMENT_K, FRAGMENT_N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, FRAGMENT_M, FRAGMENT_N, gl_MatrixUseAccumulator>
#define matrix_load_rows(m, from, at, stride)                                                      \
    coopMatLoad(m, from, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define matrix_load_columns(m, from, at, stride)                                                   \
    coopMatLoad(m, from, at, stride, gl_CooperativeMatrixLayoutColumnMajor)
#define matrix_store_rows(m, to, at, stride)                                                       \
    coopMatStore(m, to, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define matrix_multiply_add(a, b, sum) coopMatMulAdd(a, b, sum)
#else
#extension GL_NV_cooperative_matrix : require
#define MATRIX_A fcoopmatNV<16, gl_ScopeSubgroup, FRAGMENT_M, FRAGMENT_K>
#define MATRIX_B fcoopmatNV<16, gl_ScopeSubgroup, FRAGMENT_K, FRAGMENT_N>
#define MATRIX_SUM fcoopmatNV<32, gl_ScopeSubgroup, FRAGMENT_M, FRAGMENT_N>
#define matrix_load_rows(m, from, at, stride) coopMatLoadNV(m, from, at, stride, false)
#define matrix_load_columns(m, from, at, stride) coopMatLoadNV(m, from, at, stride, true)
#define matrix_store_rows(m, to, at, stride) coopMatStoreNV(m, to, at, stride, false)
#define matrix_multiply_add(a, b, sum) coopMatMulAddNV(a, b, sum)
#endif

// Shapes as initialisers, for tables of cases.
#ifndef QN_TEST_SHAPES_H
#define QN_TEST_SHAPES_H

// clang-format off
#define S0 { 0, { 0 } }
#define S1(a) { 1, { a } }
#define S2(a, b) { 2, { a, b } }
#define S3(a, b, c) { 3, { a, b, c } }
#define S4(a, b, c, d) { 4, { a, b, c, d } }
// clang-format on

#endif

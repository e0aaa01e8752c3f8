// y = x + b, x * b or b itself, elementwise. b has the shape of x, or a suffix of it, or is one
// value.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/binary.h"

layout(constant_id = 1) const uint OP = 0;
const uint ADD = 0;
const uint MUL = 1;
const uint REPEAT = 2; // x is not read
layout(constant_id = 2) const uint MODE = 0; // what b is
const uint SAME = 0;                         // of the shape of x
const uint ROW4 = 1;                         // repeated every a.period elements, a multiple of 4
const uint ROW1 = 2;                         // the same, any period
const uint ONE = 3;                          // one value

BIND_T(0, x)
BIND_T(1, b)
BIND_OUT(2, y)

float row_element(uint e) { return LOAD1(b, e % a.period); }

// Where in b the next vec4 is: carried along, as a division per vec4 would cost more than the rest.
uint column = 0, column_step = 0;
uint phase = 0; // of the window's first element, MODE == ROW1
vec4 one = vec4(0.0);

vec4 value(uint i)
{
    vec4 w = one;
    if (MODE == SAME) w = LOAD4(b, i);
    if (MODE == ROW4) {
        w = LOAD4(b, column);
        column += column_step;
        column -= column >= a.period / 4 ? a.period / 4 : 0;
    }
    if (MODE == ROW1) {
        uint e = phase + 4 * i;
        w = vec4(row_element(e), row_element(e + 1), row_element(e + 2), row_element(e + 3));
    }
    if (OP == ADD) return LOAD4(x, i) + w;
    if (OP == MUL) return LOAD4(x, i) * w;
    return w;
}

void main()
{
    if (MODE == ONE) one = vec4(LOAD1(b, 0u));
    if (MODE == ROW1) phase = a.first % a.period * 4 % a.period;
    if (MODE == ROW4) {
        column = (a.first + each_first()) % (a.period / 4);
        column_step = GROUP % (a.period / 4);
    }
    EACH_STORE(y, a.count, value)
}

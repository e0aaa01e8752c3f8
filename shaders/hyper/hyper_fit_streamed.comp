// Training steps with the parameters in memory: any device, any number of columns. See fit.glsl.
// [hypertab]
#version 450
#extension GL_GOOGLE_include_directive : require
#define STREAMED
#include "fit.glsl"

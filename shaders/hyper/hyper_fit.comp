// Training steps with the parameters in private arrays: for CPU drivers. See fit.glsl. [hypertab]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "fit.glsl"

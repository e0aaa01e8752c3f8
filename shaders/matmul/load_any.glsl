// Defines `vec4 name(uint i, uint last)`: elements i..i+3 of a 't' or 'x' binding at any alignment.
// Element `last` is the last one wanted; what the result holds beyond it has no meaning.
#define DEFINE_LOAD_ANY(name, LOAD, binding)                                                       \
    vec4 name(uint i, uint last)                                                                   \
    {                                                                                              \
        vec4 low = LOAD(binding, min(i, last) >> 2), high = LOAD(binding, min(i + 3, last) >> 2);  \
        bool two = (i & 2u) != 0, one = (i & 1u) != 0;                                             \
        vec4 even = two ? vec4(low.zw, high.xy) : low;                                             \
        float fifth = two ? high.z : high.x;                                                       \
        return one ? vec4(even.yzw, fifth) : even;                                                 \
    }

// v with zeros in place of elements i..i+3 that lie beyond `last`.
vec4 cut(vec4 v, uint i, uint last)
{
    return mix(v, vec4(0.0), greaterThan(i + uvec4(0, 1, 2, 3), uvec4(last)));
}

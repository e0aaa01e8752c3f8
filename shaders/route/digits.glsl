// What the counting and the moving kernel of a sorting pass agree on.
layout(constant_id = 1) const uint DIGITS = 16; // a power of two

// The digit of a key; DIGITS for a key that is left out, which a pass moves behind all others.
uint digit_of(uint key)
{
    return key >= a.buckets ? DIGITS : (key >> a.shift) & (DIGITS - 1u);
}

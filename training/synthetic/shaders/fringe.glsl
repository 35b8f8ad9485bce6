// Fringes that hang over the eyes are trimmed above the brows, softly and a little unevenly.
// `fringe` moves the line up (metres on the neutral body); 0 leaves the hair alone.
uniform float fringe;
float strand(float x) { return fract(sin(x * 127.1) * 43758.5); }
float fringe_cover(vec3 c, vec2 u) {
    if (fringe == 0.0 || c.y > -0.055) return 1.0;
    float x = abs(c.x), s = u.x * 140.0 + u.y * 9.0;
    float uneven = mix(strand(floor(s)), strand(floor(s) + 1.0), fract(s));
    float line = 0.7215 + fringe + 0.006 * (uneven - 0.5) + 1.6 * c.x * c.x - max(0.0, x - 0.048) * 10.0;
    return c.z > 0.60 ? smoothstep(-0.003, 0.003, c.z - line) : 1.0;
}

// A jagged line above the eyes at which hanging fringes are cut; `fringe` 0 leaves the hair alone.
uniform float fringe;
float strand(float x) { return fract(sin(x * 127.1) * 43758.5); }
bool fringe_cut(vec3 c, vec2 u) {
    if (fringe <= 0.0 || c.y > -0.055) return false;
    float x = abs(c.x), s = u.x * 140.0 + u.y * 9.0;
    float jag = mix(strand(floor(s)), strand(floor(s) + 1.0), fract(s));
    float line = 0.7215 + fringe + 0.010 * (jag - 0.5) + 2.4 * c.x * c.x - max(0.0, x - 0.050) * 10.0;
    return c.z < line && c.z > 0.60;
}

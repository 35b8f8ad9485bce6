// Lights, shadow and tone shared by the fragment programs. Three lights (key, fill, rim) over a two-colour ambient.
in vec3 P, N;
in vec3 L;
in vec2 U;
in float O;
out vec4 colour;
uniform vec3 eye, key_direction, key_colour, fill_direction, fill_colour, rim_direction, rim_colour;
uniform vec3 ambient_top, ambient_bottom;
uniform float exposure;
uniform sampler2D albedo_map;
uniform sampler2DShadow shadow_map;

float shadow(float bias) {
    vec3 q = vec3(L.xy, L.z - bias);
    float t = SHADOW_STEP;
    return 0.25 * (texture(shadow_map, q + vec3(-0.4 * t, -t, 0)) + texture(shadow_map, q + vec3(t, -0.4 * t, 0))
                 + texture(shadow_map, q + vec3(0.4 * t, t, 0)) + texture(shadow_map, q + vec3(-t, 0.4 * t, 0)));
}

vec3 to_linear(vec3 c) { return c * c * (0.7 + 0.3 * c); }

vec3 tone(vec3 c) {
    c *= exposure;
    float l = dot(c, vec3(0.3, 0.5, 0.2));
    c = mix(c * (1.0 + c * 0.10) / (1.0 + c * 0.42), c * ((1.0 + l * 0.10) / (1.0 + l * 0.42)), 0.45);
    return pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2));
}

// Light of a wrapped diffuse surface; `wrap` per channel lets red light creep round skin.
vec3 diffuse(vec3 n, vec3 wrap, vec3 key_shadow, vec3 occlusion, float rim_occlusion) {
    vec3 key = clamp((vec3(dot(n, key_direction)) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 fill = clamp((vec3(dot(n, fill_direction)) + wrap) / (1.0 + wrap), 0.0, 1.0);
#ifdef SOFT_TERMINATOR
    key = mix(key, key * key * (3.0 - 2.0 * key), 0.35);
#endif
    return key_colour * key * key_shadow * mix(vec3(1), occlusion, 0.45)
         + fill_colour * fill * mix(vec3(1), occlusion, 0.7)
         + rim_colour * clamp(dot(n, rim_direction), 0.0, 1.0) * 0.45 * rim_occlusion
         + mix(ambient_bottom, ambient_top, n.z * 0.5 + 0.5) * occlusion;
}

float gloss(vec3 n, vec3 l, vec3 v, float rough) {
    vec3 h = normalize(l + v);
    float a = rough * rough, d = max(dot(n, h), 0.0), q = d * d * (a * a - 1.0) + 1.0;
    float f = 1.0 - max(dot(h, v), 0.0);
    f = 0.04 + 0.96 * f * f * f * f * f;
    return a * a / (3.14 * q * q) * f * 0.25;
}

vec3 highlights(vec3 n, vec3 v, float rough, float specular, float key_shadow, float occlusion) {
    return key_colour * specular * gloss(n, key_direction, v, rough) * max(dot(n, key_direction), 0.0) * key_shadow * occlusion
         + fill_colour * specular * gloss(n, fill_direction, v, rough) * max(dot(n, fill_direction), 0.0) * occlusion * 0.8;
}

vec3 rim(vec3 n, vec3 v, vec3 albedo, float sheen, float occlusion, vec3 light) {
    float e = 1.0 - max(dot(n, v), 0.0);
    return rim_colour * e * e * e * max(dot(n, rim_direction) + 0.3, 0.0) * occlusion * (0.18 + sheen) * mix(vec3(1), albedo * 2.5, 0.6)
         + sheen * albedo * e * e * sqrt(e) * 0.5 * light;
}

// Hair cards, twice: texels of alpha in [alpha_from, alpha_to). Strand highlights after Kajiya and Kay.
in vec3 T, C;
uniform float alpha_from, alpha_to;
void main() {
    vec4 t = texture(albedo_map, U);
    vec3 v = normalize(eye - P);
    vec3 card = normalize(cross(dFdx(P), dFdy(P)));
    float alpha = clamp((t.a - 0.5) * 1.6 + 0.5, 0.0, 1.0) * smoothstep(0.04, 0.28, abs(dot(card, v)))
                * fringe_cover(C, U);
    if (t.a < 0.10 || alpha < alpha_from || alpha >= alpha_to || alpha < 0.02) discard;
    vec3 n = normalize(N);
    if (dot(n, v) < -0.2) n = -n;
    n = normalize(n + v * 0.15);
    vec3 albedo = to_linear(t.rgb);
    float s = shadow(0.009), occlusion = O;
    vec3 light = diffuse(n, vec3(0.30), vec3(s), vec3(occlusion), occlusion);
    vec3 h = normalize(key_direction + v);
    float a = dot(normalize(T + n * 0.08), h), b = dot(normalize(T - n * 0.12), h);
    float k1 = pow(max(0.0, 1.0 - a * a), 40.0), k2 = pow(max(0.0, 1.0 - b * b), 12.0);
    float e = 1.0 - max(dot(n, v), 0.0);
    vec3 c = albedo * light
           + key_colour * s * occlusion * clamp(dot(n, key_direction) + 0.3, 0.0, 1.0)
             * (k1 * 0.05 * (0.3 + dot(t.rgb, vec3(0.47))) + albedo * k2 * 0.55)
           + rim_colour * (albedo * 1.5 + 0.02) * e * e * clamp(dot(n, rim_direction) + 0.4, 0.0, 1.4) * occlusion * 0.7;
    colour = vec4(tone(c), alpha);
}

// Skin. The albedo's alpha is glossiness; below 0.02 it marks the mouth's cavity, whose darkness is painted.
uniform float shine;
void main() {
    vec3 v = normalize(eye - P), n = normalize(N);
    if (dot(n, v) < 0.0) n = -n;
    vec4 t = texture(albedo_map, U);
    float occlusion = t.a < 0.02 ? 0.9 : O;
    vec3 albedo = to_linear(t.rgb);
    float s = shadow(0.0045);
    vec3 warm = pow(vec3(occlusion), vec3(0.62, 1.0, 1.1));
    vec3 light = diffuse(n, vec3(0.36, 0.17, 0.11), pow(vec3(s), vec3(0.78, 1.0, 1.08)), warm, occlusion);
    vec3 c = albedo * light + highlights(n, v, mix(0.52, 0.36, t.a), shine * (0.55 + 0.9 * t.a), s, occlusion)
           + rim(n, v, albedo, 0.0, occlusion, light);
    colour = vec4(tone(c), 1.0);
}

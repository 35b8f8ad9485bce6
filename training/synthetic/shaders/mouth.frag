// Teeth (TEETH) and tongue: darker the deeper they lie in the mouth.
in vec3 C;
uniform mat3 head_turn;
void main() {
    vec4 t = texture(albedo_map, U);
    if (t.a < 0.3) discard;
    vec3 v = normalize(eye - P), n = normalize(N);
#ifdef TEETH
    vec3 albedo = to_linear(t.rgb * vec3(1.04, 1.0, 0.95));
    float occlusion = mix(0.95, 0.06, smoothstep(-0.140, -0.100, C.y)) * mix(1.0, 0.8, smoothstep(0.012, 0.028, abs(C.x)));
    n = normalize(mix(n, head_turn * normalize(vec3(C.x * 22.0, -1.0, 0.2)), 0.6));
    vec3 wrap = vec3(0);
    float rough = 0.28, specular = 0.5 * occlusion;
#else
    vec3 albedo = to_linear(t.rgb * vec3(0.72, 0.50, 0.50));
    float occlusion = mix(0.6, 0.04, smoothstep(-0.136, -0.095, C.y));
    vec3 wrap = vec3(0.3, 0.12, 0.1);
    float rough = 0.4, specular = 0.4 * occlusion;
#endif
    vec3 light = diffuse(n, wrap, vec3(0.75 + 0.25 * shadow(0.0045)), vec3(occlusion), occlusion);
    colour = vec4(tone(albedo * light + highlights(n, v, rough, specular, 0.9, occlusion)), 1.0);
}

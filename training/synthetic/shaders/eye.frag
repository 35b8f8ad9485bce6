// Eyeballs: the iris picture projected around the optical axis, shaded under the lids.
in vec3 C;
uniform vec3 eye_centre[2];
uniform mat3 eye_turn[2];
uniform float iris_scale;
void main() {
    int k = C.x > 0.0 ? 0 : 1;
    vec3 v = normalize(eye - P);
    vec3 d = normalize(transpose(eye_turn[k]) * (P - eye_centre[k]));
    float angle = acos(clamp(-d.y, -1.0, 1.0));
    vec2 q = normalize(d.xz + 1e-6) * angle * iris_scale;
    vec3 albedo = to_linear(texture(albedo_map, vec2(0.7128, 0.7158) + q).rgb * vec3(1.10, 1.08, 1.07));
    float occlusion = mix(0.35, 1.0, smoothstep(0.60, 0.05, d.z)) * mix(0.6, 1.0, smoothstep(-0.75, -0.35, d.z))
                    * mix(0.45, 1.0, smoothstep(0.85, 0.45, abs(d.x)));
    vec3 n = normalize(P - eye_centre[k]);
    float s = mix(shadow(0.0045), 1.0, 0.5);
    vec3 light = diffuse(n, vec3(0.15, 0.1, 0.1), vec3(s), vec3(occlusion), occlusion);
    colour = vec4(tone(albedo * light + highlights(n, v, 0.10, 1.0, s, occlusion)), 1.0);
}

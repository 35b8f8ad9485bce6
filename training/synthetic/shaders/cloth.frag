// Cloth: a normal map turned by screen derivatives, and sheen at grazing angles.
uniform sampler2D normal_map;
void main() {
    vec4 t = texture(albedo_map, U);
    if (t.a < 0.5) discard;
    vec3 v = normalize(eye - P), n = normalize(N);
    float occlusion = O;
    if (!gl_FrontFacing) { n = -n; occlusion *= 0.5; }
    vec3 p1 = dFdx(P), p2 = dFdy(P);
    vec2 u1 = dFdx(U), u2 = dFdy(U);
    vec3 q2 = cross(p2, n), q1 = cross(n, p1);
    vec3 tangent = q2 * u1.x + q1 * u2.x, bitangent = q2 * u1.y + q1 * u2.y;
    float size = inversesqrt(max(dot(tangent, tangent), dot(bitangent, bitangent)) + 1e-20);
    vec3 m = texture(normal_map, U).xyz * 2.0 - 1.0;
    n = normalize(n * max(m.z, 0.3) + (tangent * m.x + bitangent * m.y) * size * 1.2);
    vec3 albedo = to_linear(t.rgb);
    float s = shadow(0.0045);
    vec3 light = diffuse(n, vec3(0.06), vec3(s), vec3(occlusion), occlusion);
    vec3 c = albedo * light + highlights(n, v, 0.8, 0.10, s, occlusion) + rim(n, v, albedo, 0.30, occlusion, light);
    colour = vec4(tone(c), 1.0);
}

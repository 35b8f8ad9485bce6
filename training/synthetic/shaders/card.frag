// Brows and lashes: blended cards.
void main() {
    vec4 t = texture(albedo_map, U);
    float alpha = smoothstep(0.02, 0.85, t.a);
    if (alpha < 0.03) discard;
    vec3 albedo = to_linear(t.rgb), n = normalize(N);
    colour = vec4(tone(albedo * diffuse(n, vec3(0.4), vec3(shadow(0.0045)), vec3(1), 1.0)), alpha);
}

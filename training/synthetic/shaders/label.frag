// What is seen of hair and cloth is decided as in their own programs.
in vec2 U;
in vec3 C, A;
uniform sampler2D albedo_map;
uniform int kind;
out vec4 label;
void main() {
    float a = texture(albedo_map, U).a;
    if (kind == KIND_HAIR && clamp((a - 0.5) * 1.6 + 0.5, 0.0, 1.0) * fringe_cover(C, U) < 0.45) discard;
    if (kind == KIND_CLOTH && a < 0.5) discard;
    label = vec4(A, float(kind));
}

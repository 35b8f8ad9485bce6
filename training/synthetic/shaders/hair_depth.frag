// Depth of hair cards: where the texture is solid enough.
in vec3 C;
in vec2 U;
uniform sampler2D albedo_map;
void main() {
    if (texture(albedo_map, U).a * fringe_cover(C, U) < 0.4) discard;
}

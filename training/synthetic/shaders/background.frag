#version 330
in vec2 U;
out vec4 colour;
uniform sampler2D room;
void main() { colour = vec4(texture(room, U).rgb, 1.0); }

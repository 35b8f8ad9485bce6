#version 330
in vec2 position;
out vec2 U;
void main() {
    U = position * 0.5 + 0.5;
    gl_Position = vec4(position, 0.99999, 1.0);
}

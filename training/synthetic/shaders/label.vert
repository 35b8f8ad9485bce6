// Labels instead of colours: depth along the view, and the shares that are given with every vertex.
#version 330
in vec3 position, canonical;
in vec2 uv, share;
uniform mat4 camera;
uniform vec4 axis;
out vec2 U;
out vec3 C, A;
void main() {
    U = uv;
    C = canonical;
    A = vec3(dot(axis.xyz, position) + axis.w, share);
    gl_Position = camera * vec4(position, 1.0);
}

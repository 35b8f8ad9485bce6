// Every surface of a person: places it, and hands on what its fragment program asks for.
#version 330
in vec3 position, normal, canonical, tangent;
in vec2 uv;
in float occlusion;
uniform mat4 camera, light;
uniform mat3 head_turn;
uniform float depth_bias;
out vec3 P, N, C, T;
out vec2 U;
out vec3 L;
out float O;
void main() {
    P = position;
    N = normal;
    C = canonical;
    U = uv;
    O = occlusion;
    T = head_turn * tangent;
    L = (light * vec4(position + normal * 0.005, 1.0)).xyz * 0.5 + 0.5;
    gl_Position = camera * vec4(position, 1.0);
    gl_Position.z -= depth_bias * gl_Position.w;
}

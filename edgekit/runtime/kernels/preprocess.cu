// One frame to a model's input in one pass: resize, colour order, normalization, quantization,
// layout. Equal to edgekit/runtime/preprocess.py bit by bit, which is OpenCV's fixed-point
// arithmetic: modules/imgproc/src/resize.cpp (INTER_LINEAR of 8-bit pixels, 11-bit weights) and
// color_yuv.simd.hpp, color_rgb.simd.hpp (NV12 of BT.601 limited range, grey).
//
// What depends on the sizes alone is in the plan, which edgekit/runtime/gpu_plan.py makes
// once: the source pixels and weights of each output column and row, and the model's input value
// for each of the 256 grey levels a channel. So there is no float arithmetic here, and one kernel
// serves every element type.
//
// Plain C++ without CUDA's headers: nvcc, NVRTC and, for the tests, a C++ compiler take it.

typedef unsigned char Byte;

// The two source pixels of an output column or row, and their weights, which sum up to 2048.
struct Tap {
    int first, second, first_weight, second_weight;  // first < 0: padding, no source pixel
};

// As `_HEADER` in gpu_plan.py; offsets are bytes from the plan's begin.
struct Plan {
    int width, height, channels;                    // of the output
    int row_stride, column_stride, channel_stride;  // of the output, in elements
    int element_bytes;                              // of the output: 1, 2 or 4
    int is_nv12, pixel_bytes, pitch, chroma_pitch;  // of the frame; pitch: bytes a row
    int sources[3];                                 // frame channel of each output channel
    int to_gray, pad;
    int columns, rows, table;  // where Tap[], Tap[] and the elements [channels][256] begin
};

struct Pixel {
    int levels[3];  // blue, green, red; of a grey frame the first alone
};

__device__ static int clamp_to_byte(int value)
{
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

__device__ static Pixel from_nv12(
    const Plan *plan, const Byte *luma, const Byte *chroma, int x, int y)
{
    const Byte *pair = chroma + (y >> 1) * plan->chroma_pitch + (x & ~1);
    const int above_black = luma[y * plan->pitch + x] - 16;
    const int light = (above_black < 0 ? 0 : above_black) * 1220542 + (1 << 19);
    const int u = pair[0] - 128, v = pair[1] - 128;
    Pixel pixel;
    pixel.levels[0] = clamp_to_byte((light + 2116026 * u) >> 20);
    pixel.levels[1] = clamp_to_byte((light - 409993 * u - 852492 * v) >> 20);
    pixel.levels[2] = clamp_to_byte((light + 1673527 * v) >> 20);
    return pixel;
}

__device__ static Pixel read(const Plan *plan, const Byte *frame, const Byte *chroma, int x, int y)
{
    if (plan->is_nv12)
        return from_nv12(plan, frame, chroma, x, y);
    const Byte *at = frame + y * plan->pitch + x * plan->pixel_bytes;
    const bool gray = plan->pixel_bytes == 1;
    Pixel pixel;
    pixel.levels[0] = at[0];
    pixel.levels[1] = gray ? at[0] : at[1];
    pixel.levels[2] = gray ? at[0] : at[2];
    return pixel;
}

// The vertical step drops 4 bits, then 16, then rounds the last 2, as OpenCV's does.
__device__ static int blend(int top, int bottom, const Tap &row)
{
    const int upper = (row.first_weight * (top >> 4)) >> 16;
    const int lower = (row.second_weight * (bottom >> 4)) >> 16;
    return clamp_to_byte((upper + lower + 2) >> 2);
}

__device__ static Pixel resized(
    const Plan *plan, const Byte *frame, const Byte *chroma, const Tap &column, const Tap &row)
{
    const Pixel a = read(plan, frame, chroma, column.first, row.first);
    const Pixel b = read(plan, frame, chroma, column.second, row.first);
    const Pixel c = read(plan, frame, chroma, column.first, row.second);
    const Pixel d = read(plan, frame, chroma, column.second, row.second);
    Pixel pixel;
    for (int i = 0; i < 3; ++i) {
        const int top = a.levels[i] * column.first_weight + b.levels[i] * column.second_weight;
        const int bottom = c.levels[i] * column.first_weight + d.levels[i] * column.second_weight;
        pixel.levels[i] = blend(top, bottom, row);
    }
    return pixel;
}

__device__ static void store(const Plan *plan, void *output, int index, int entry)
{
    const Byte *table = (const Byte *)plan + plan->table;
    if (plan->element_bytes == 1)
        ((Byte *)output)[index] = table[entry];
    else if (plan->element_bytes == 2)
        ((unsigned short *)output)[index] = ((const unsigned short *)table)[entry];
    else
        ((unsigned int *)output)[index] = ((const unsigned int *)table)[entry];
}

// One thread a pixel of the output. `chroma` is the second plane of NV12, else not read.
extern "C" __global__ void preprocess(
    const Byte *frame, const Byte *chroma, const Plan *plan, void *output)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= plan->width || y >= plan->height)
        return;
    const Tap column = ((const Tap *)((const Byte *)plan + plan->columns))[x];
    const Tap row = ((const Tap *)((const Byte *)plan + plan->rows))[y];
    Pixel pixel = {{plan->pad, plan->pad, plan->pad}};
    if (column.first >= 0 && row.first >= 0)
        pixel = resized(plan, frame, chroma, column, row);
    if (plan->to_gray) {
        const int *level = pixel.levels;
        pixel.levels[0] = (3735 * level[0] + 19235 * level[1] + 9798 * level[2] + (1 << 14)) >> 15;
    }
    const int start = y * plan->row_stride + x * plan->column_stride;
    for (int i = 0; i < plan->channels; ++i)
        store(plan, output, start + i * plan->channel_stride,
              256 * i + pixel.levels[plan->sources[i]]);
}

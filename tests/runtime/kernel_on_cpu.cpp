// kernels/preprocess.cu as C++ on the CPU: a loop stands in for the GPU's threads. A stand-in for
// hardware that is not there; it proves the arithmetic and the addresses, and nothing of speed.

#define __global__
#define __device__

struct Index {
    int x, y;
};
static thread_local Index threadIdx, blockIdx, blockDim;

#include "preprocess.cu"

extern "C" void launch(int grid_x, int grid_y, int block_x, int block_y, const Byte *frame,
                       const Byte *chroma, const Plan *plan, void *output)
{
    blockDim = Index{block_x, block_y};
    for (blockIdx.y = 0; blockIdx.y < grid_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid_x; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < block_y; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < block_x; ++threadIdx.x)
                    preprocess(frame, chroma, plan, output);
}

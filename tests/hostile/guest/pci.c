#include "hostile.h"

struct function functions[64];
int function_count;

u32 config_read(u16 devfn, int off, int width)
{
	u64 at = ECAM + (u64)devfn * 4096 + off;
	return width == 1 ? REG(u8, at) : width == 2 ? REG(u16, at) : REG(u32, at);
}

void config_write(u16 devfn, int off, int width, u32 v)
{
	u64 at = ECAM + (u64)devfn * 4096 + off;
	if (width == 1)
		REG(u8, at) = v;
	else if (width == 2)
		REG(u16, at) = v;
	else
		REG(u32, at) = v;
}

static void bars(struct function *f)
{
	for (int i = 0; i < 6; i++) {
		u32 v = config_read(f->devfn, 0x10 + 4 * i, 4);
		f->bar[i] = v & 1 ? v & ~3u : v & ~15u;
		if ((v & 7) == 4 && i < 5) {
			f->bar[i] |= (u64)config_read(f->devfn, 0x14 + 4 * i, 4) << 32;
			i++;
		}
	}
}

void scan_pci(void)
{
	for (int devfn = 0; devfn < 256 && function_count < 63; devfn++) {
		u32 id = config_read(devfn, 0, 4);
		if (id == ~0u)
			continue;
		struct function *f = &functions[function_count++];
		f->devfn = devfn;
		f->vendor = id;
		f->device = id >> 16;
		bars(f);
	}
	put_bars();
}

void put_bars(void)
{
	for (int n = 0; n < function_count; n++) {
		struct function *f = &functions[n];
		config_write(f->devfn, 4, 2, 0);
		for (int i = 0; i < 6; i++) {
			if (!f->bar[i])
				continue;
			config_write(f->devfn, 0x10 + 4 * i, 4, f->bar[i]);
			if (f->bar[i] >> 32 || (config_read(f->devfn, 0x10 + 4 * i, 4) & 7) == 4)
				config_write(f->devfn, 0x14 + 4 * i, 4, f->bar[i] >> 32);
		}
		config_write(f->devfn, 4, 2, 7);
	}
}

; Fills x87, SSE and, where port 0x81 says so, AVX registers in user mode, sets
; 0x6000 to 1, waits for 0x6008, stores the registers from 0x6100 on, sets 0x6000 to 2.
; 0x6004 becomes 1 if AVX was used: a CPU that only emulates may answer #UD.
%include "common.inc"
main:   PROTECTED
        LONG
        lidt [idtr]
        mov dword [abs 4], 0x6e000      ; RSP0 of the task at 0
        mov rax, cr4
        or eax, 3 << 9          ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
        mov rax, cr0
        and eax, ~(1 << 2)      ; EM
        or eax, 1 << 1          ; MP
        mov cr0, rax
        in al, 0x81
        movzx r12, al
        test al, al
        jz .sse
        mov rax, cr4
        or eax, 1 << 18         ; OSXSAVE
        mov cr4, rax
        xor ecx, ecx
        xor edx, edx
        mov eax, 7
        xsetbv
.sse:   push 0x23
        push 0x6f000
        push 2
        push 0x2b
        push .user
        iretq
.user:  fninit
        fld1
        fldpi
        fldln2
        fchs
        mov rsi, table
%assign i 0
%rep 16
        movdqu xmm %+ i, [rsi+i*16]
%assign i i+1
%endrep
        test r12, r12
        jz ready
        vinsertf128 ymm0, ymm0, xmm5, 1
        vinsertf128 ymm15, ymm15, xmm6, 1
        mov dword [abs 0x6004], 1
ready: mov dword [abs 0x6000], 1
again:  pause
        cmp dword [abs 0x6008], 0
        je again
%assign i 0
%rep 16
        movdqu [abs 0x6100+i*16], xmm %+ i
%assign i i+1
%endrep
        fstp tword [abs 0x6200]
        fstp tword [abs 0x6210]
        fstp tword [abs 0x6220]
        test r12, r12
        jz end
        vmovups [abs 0x6240], ymm0
        vmovups [abs 0x6260], ymm15
end:   mov dword [abs 0x6000], 2
stay:  pause
        jmp stay

noavx:  xor r12d, r12d
        mov qword [rsp], ready
        iretq

        align 16
idt:    times 6*2 dq 0
        dw noavx - $$ + 0x1000
        dw 0x18
        dw 0x8e00
        dw 0
        dq 0
idtr:   dw idtr - idt - 1
        dq idt
        align 16
table:
%assign i 0
%rep 16
        dq 0x0101010101010101 * i, 0xf0e0d0c0b0a09080 + i
%assign i i+1
%endrep

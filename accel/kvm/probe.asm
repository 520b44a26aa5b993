; The probe's guest. Port 0x81 asks how many turns to count, port 0x80 reports
; each count's end, 0 turns ends counting. Then come kernel-mode instructions of
; which some KVMs stop: each notes at 0x6000 where to go on without it, and
; reports its number at port 0x82 when it was executed.
%include "../acceltest/testdata/common.inc"

%macro TRY 2+
        mov dword [abs 0x6000], %%after
        %2
        mov al, %1
        out 0x82, al
%%after:
%endmacro

main:   PROTECTED
        LONG
        mov rax, cr0
        and eax, ~(1 << 2)      ; EM
        or eax, 1 << 1 | 1 << 5 ; MP, NE
        mov cr0, rax
        mov rax, cr4
        or eax, 3 << 9          ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
.count: in eax, 0x81
        test eax, eax
        jz .try
        mov ecx, eax
.turn:  dec ecx
        jnz .turn
        out 0x80, al
        jmp .count
.try:   TRY 0, lock cmpxchg16b [abs 0x6010]
        TRY 1, fnclex
        TRY 2, fwait
        mov eax, 1
        xor ecx, ecx
        cpuid
        bt ecx, 26              ; XSAVE
        jnc .none
        mov rax, cr4
        or eax, 1 << 18         ; OSXSAVE
        mov cr4, rax
        mov eax, -1
        mov edx, -1
        TRY 3, xrstor64 [abs 0x6400]
        DONE
.none:  mov al, 3
        out 0x82, al
        DONE

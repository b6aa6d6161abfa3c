# Set the lab up in this folder and open it, without make and without admin rights:
#     powershell -ExecutionPolicy Bypass -File start.ps1 [-DryRun] [arguments for lora-lab, such as: demo]
# If there is a folder `wheelhouse` here or next to this folder, or LORA_LAB_WHEELHOUSE names one, the script installs from
# there without a network (docs/install.md); otherwise, it installs from pip's index. To start over, delete .venv.
param([switch]$DryRun)  # without [Parameter()], which would add options such as -OutVariable: --out would be ambiguous
$Words = $args
$Named = $env:LORA_LAB_WHEELHOUSE
if ($Named) { $Named = [IO.Path]::Combine($PWD.ProviderPath, $Named) }  # relative to the current folder
Set-Location -LiteralPath $PSScriptRoot
$env:PYTHONUTF8 = "1"
[Console]::OutputEncoding = [Text.Encoding]::UTF8  # Python prints its path in UTF-8, so any character works
$Lab = Join-Path $PSScriptRoot ".venv\Scripts\python.exe"
$Stamp = Join-Path $PSScriptRoot ".venv\.lab"

function Invoke-Step([string]$Program, [string[]]$Arguments) {
    if ($DryRun) { Write-Output "would run: $Program $Arguments"; return }
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
}

function Say([string]$Words) {
    if (-not $DryRun) { Write-Output "start: $Words" }
}

function Find-Python {
    $Versions = @()
    if ($Wheelhouse) {  # the versions that it was made for; the installer accepts only these
        $Locks = Get-ChildItem -LiteralPath $Wheelhouse -Filter "windows-3.*.txt"
        $Versions += @($Locks | ForEach-Object { $_.BaseName -replace "^windows", "" })
    }
    $Versions += "-3.11", "-3.12", "-3.13", "-3.14"
    foreach ($Version in $Versions) {
        if (-not (Get-Command py -ErrorAction SilentlyContinue)) { break }
        $Found = & py $Version -c "import sys; print(sys.executable)"
        if ($LASTEXITCODE -eq 0) { return $Found }
    }
    if (Get-Command python -ErrorAction SilentlyContinue) {
        $Found = & python -c "import sys; print(sys.executable if (3, 11) <= sys.version_info < (3, 15) else '')"
        if ($LASTEXITCODE -eq 0 -and $Found) { return $Found }
    }
}

function Test-Environment([string]$Module) {
    if (-not (Test-Path -LiteralPath $Lab)) { return $false }
    & $Lab -c "import sys, $Module; sys.exit(sys.version_info < (3, 11))" 2>$null
    return $LASTEXITCODE -eq 0
}

if ($Named -and -not (Test-Path -LiteralPath ([IO.Path]::Combine($Named, "install.py")))) {
    Write-Output "start: LORA_LAB_WHEELHOUSE is $Named, which has no install.py: set it to a wheelhouse folder, or unset it"
    exit 1
}
$Wheelhouse = @($Named, "wheelhouse", "..\wheelhouse") |
    Where-Object { $_ -and (Test-Path -LiteralPath ([IO.Path]::Combine($_, "install.py"))) } | Select-Object -First 1

if (-not ((Test-Path -LiteralPath $Stamp) -and (Test-Environment "os"))) {  # an update may have removed its Python
    $Python = Find-Python
    if (-not $Python) {
        Write-Output "start: the lab needs Python 3.11 to 3.14: install it (an installation for your own account is enough), then run this script again"
        exit 1
    }
    Say "installing Python packages into .venv (once): 3 to 10 minutes without output, 2 GB of disk (more with CUDA)"
    if ($Wheelhouse) {
        Invoke-Step $Python @([IO.Path]::Combine($Wheelhouse, "install.py"), "--to", ".", "--no-assets")
    } else {
        # If .venv has no pip (uv adds none), add pip and keep the other packages. If pip can't be added, or if
        # the environment has an older Python, create the environment again.
        if (-not (Test-Environment "pip")) {
            if (Test-Environment "ensurepip") { Invoke-Step $Lab @("-m", "ensurepip") }
            else { Invoke-Step $Python @("-m", "venv", "--clear", ".venv") }
        }
        # Before version 3.13, Python on Windows can't read the path of an editable package if it isn't ASCII
        $Package = if ($PSScriptRoot -match "[^\x00-\x7F]") { @(".") } else { @("-e", ".") }
        Invoke-Step $Lab (@("-m", "pip", "install", "--disable-pip-version-check", "-q") + $Package)
        if (-not $DryRun) { New-Item -ItemType File -Path $Stamp -Force | Out-Null }
    }
}
Say "models and data: this downloads 200 MB the first time, and later only checks the files"
$Fetch = @("-m", "lora_course", "fetch")
if ($Wheelhouse) { $Fetch += @("--from", [IO.Path]::Combine($Wheelhouse, "assets")) }
Invoke-Step $Lab $Fetch
Invoke-Step $Lab (@("-m", "lora_course") + $Words)
